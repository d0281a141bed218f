package pbs

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/berth-hpc/berth/launcher/wire"
)

// standIn builds the stand-in for PBS's programs below a folder like PBS_EXEC.
func standIn(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	program := filepath.Join(dir, "bin/qmgr")
	if out, err := exec.Command("go", "build", "-o", program, "../testdata/pbs").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return dir
}

// TestSetup: the hook and its resources can be installed, installed again with
// other settings, and removed, each any number of times.
func TestSetup(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("not root: qmgr is root's")
	}
	server := t.TempDir()
	environment := append(os.Environ(), "PBS_EXEC="+standIn(t), "PBS_SERVER_HOME="+server, "BERTH_PBS_CONFIG="+filepath.Join(server, "pbs.json"))
	setup := func(args ...string) string {
		t.Helper()
		cmd := exec.Command("./setup", args...)
		cmd.Env = environment
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("%q: %v: %s", args, err, out)
		}
		return string(out)
	}
	var d struct {
		Hooks     map[string]map[string]string
		Resources map[string]map[string]string
	}
	read := func() {
		t.Helper()
		data, err := os.ReadFile(filepath.Join(server, "database"))
		must(t, err)
		d.Hooks, d.Resources = nil, nil
		must(t, json.Unmarshal(data, &d))
	}
	for range 2 {
		if out := setup("install", "/opt/berth"); out != "" {
			t.Errorf("it says %q", out)
		}
		read()
		h := d.Hooks["berth"]
		if h["Enabled"] != "True" || h["FailAction"] != "none" || !strings.Contains(h["Event"], "execjob_launch,") || len(d.Hooks) != 1 {
			t.Errorf("hooks %v", d.Hooks)
		}
		for _, name := range []string{"container_image", "container_mounts", "container_workdir", "container_env", "container_mode"} {
			if d.Resources[name]["flag"] != "m" || d.Resources[name]["type"] != "string" {
				t.Errorf("%s: %v", name, d.Resources[name])
			}
		}
		for name, want := range map[string]string{"berth.PY": "berth_hook.py", "berth.CF": ""} {
			got, err := os.ReadFile(filepath.Join(server, name))
			must(t, err)
			data := []byte("{\"prefix\": \"/opt/berth\"}\n")
			if want != "" {
				data, err = os.ReadFile(want)
				must(t, err)
			}
			if string(got) != string(data) {
				t.Errorf("%s is %q", name, got)
			}
		}
	}
	must(t, os.WriteFile(filepath.Join(server, "pbs.json"), []byte(`{"account": ""}`), 0o644))
	setup("install")
	if got, err := os.ReadFile(filepath.Join(server, "berth.CF")); err != nil || string(got) != `{"account": ""}` {
		t.Errorf("the site's settings: %q, %v", got, err)
	}
	for range 2 {
		setup("uninstall")
		if read(); len(d.Hooks) > 0 || len(d.Resources) > 0 {
			t.Errorf("left: %v, %v", d.Hooks, d.Resources)
		}
	}
}

// qstatText is what a user's job looks like whose variables lie.
const qstatText = `Job Id: 7.server
    Job_Owner = nobody@here
    Resource_List.container_mounts = /a b:/c
    exec_host = n1/0*2+n1/1
    Variable_List = PBS_O_HOME=/,CONTAINER_IMAGE=debian:12@sha256:
	0123,X=
    euser = root
    Resource_List.container_image = 
`

// TestPrologue: without hooks, who the user is comes from pbs_mom.
func TestPrologue(t *testing.T) {
	h := newHost(t, "")
	config := h.file("pbs.json")
	must(t, os.WriteFile(config, []byte(`{"account": "x", "prefix": "`+h.prefix+`"}`), 0o644))
	h.program("bin/berth", "exit 75")
	h.program("libexec/berth/berth-create", "mkdir -p "+h.runDir+"/jobs/7.server; : >"+h.runDir+"/jobs/7.server/record.json")
	qstat := h.file("qstat")
	must(t, os.WriteFile(h.file("text"), []byte(qstatText), 0o644))
	must(t, os.WriteFile(qstat, []byte("#!/bin/sh\ncat "+h.file("text")+"\n"), 0o755))
	script := func(name string) {
		t.Helper()
		cmd := exec.Command("./"+name, "7.server", "nobody", "nogroup")
		cmd.Env = []string{"BERTH_PBS_CONFIG=" + config, "BERTH_QSTAT=" + qstat, "BERTH_RUN_DIR=" + h.runDir, "LD_LIBRARY_PATH=/x"}
		began := time.Now()
		if out, err := cmd.CombinedOutput(); err != nil || len(out) > 0 || time.Since(began) > 20*time.Second {
			t.Fatalf("%s: %v: %s", name, err, out)
		}
	}
	script("epilogue")
	if call, _ := h.call(); call != "" {
		t.Errorf("a job without a container: %s", call)
	}
	script("prologue")
	call, input := h.call()
	m, err := wire.Decode(input)
	must(t, err)
	for key, want := range map[string]string{
		"job": "7.server", "uid": "65534", "gid": "65534", "nodes": "1", "mode": "ranks", "image": "debian:12@sha256:0123", "mounts": "/a b:/c",
	} {
		if got := m.All(key); len(got) != 1 || got[0] != want {
			t.Errorf("%s: %q, want %q", key, got, want)
		}
	}
	if strings.Contains(call, "LD_LIBRARY_PATH") {
		t.Errorf("called as %s", call)
	}
	must(t, os.Remove(h.file("call")))
	script("epilogue")
	if call, input := h.call(); !strings.Contains(call, "arg node\narg cleanup\n") || string(input) != "job=7.server\x00" {
		t.Errorf("called as %s with %q", call, input)
	}
	must(t, os.Remove(h.file("call")))
	must(t, os.WriteFile(h.file("text"), []byte("Job Id: 7.server\n"), 0o644))
	script("prologue")
	if call, _ := h.call(); call != "" {
		t.Errorf("a job without a container: %s", call)
	}
}
