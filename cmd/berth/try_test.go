package main

import (
	"os/exec"
	"strings"
	"testing"

	"github.com/berth-hpc/berth/imagecache"
	"github.com/berth-hpc/berth/imagecache/store"
)

func TestTry(t *testing.T) {
	for _, test := range []struct {
		ref  string
		cfg  store.Config
		want string
	}{
		{"quay.io/biocontainers/samtools:1.17--h00cdaf9_0", store.Config{}, "REF samtools --version"},
		{"quay.io/biocontainers/mulled-v2-0123:abc--1", store.Config{Entrypoint: []string{"/sbin/tini", "--"}}, "REF cat /etc/os-release"},
		{"biocontainers/comet:v1", store.Config{Labels: map[string]string{"software": "Comet"}}, "REF comet --version"},
		{"me/tool", store.Config{Entrypoint: []string{"/usr/bin/tool"}}, "--entrypoint REF --help"},
		{"me/tool", store.Config{Entrypoint: []string{"/bin/sh", "-c"}, Cmd: []string{"/opt/Rscript", "-e"}}, "REF Rscript --version"},
		{"debian", store.Config{Cmd: []string{"bash"}}, "REF cat /etc/os-release"},
		{"me/tool", store.Config{Cmd: []string{"$(reboot)"}, Labels: map[string]string{"software": "a; rm -rf ~"}}, "REF cat /etc/os-release"},
		{"me/tool", store.Config{Cmd: []string{"--privileged"}}, "REF cat /etc/os-release"},
	} {
		ref, err := imagecache.ParseReference(test.ref)
		if err != nil {
			t.Fatal(err)
		}
		m := madeImage{ref: ref, image: store.Manifest{Config: test.cfg}}
		if want := "berth run " + strings.Replace(test.want, "REF", ref.String(), 1); m.try() != want {
			t.Errorf("%s: %s, want %s", test.ref, m.try(), want)
		}
	}
}

// TestCommandLine has a shell read what users are told to type.
func TestCommandLine(t *testing.T) {
	words := []string{"printf", "%s|", "oci:/a b/$(touch pwned)`id`'x\";|&<>\n*", "#no", "", "~", "a=b", "registry#me/x:1@sha256:0"}
	out, err := exec.Command("sh", "-c", commandLine(words...)).CombinedOutput()
	if want := strings.Join(words[2:], "|") + "|"; err != nil || string(out) != want {
		t.Errorf("%q, %v, want %q", out, err, want)
	}
}
