package main

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/berth-hpc/berth/testdata/images"
	"github.com/berth-hpc/berth/testdata/probe"
)

// TestSameByHand runs testdata/same/*.txtar, with the program of package probe
// at $PROBE: a command in an image compared with the same one outside of it.
func TestSameByHand(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("the users of the scripts are made by root")
	}
	shell, err := images.ReadLayout(images.Layout(t, "tiny"), images.Tag)
	if err != nil {
		t.Fatal(err)
	}
	program := probe.Build(t)
	for _, path := range []string{program, filepath.Join(filepath.Dir(program), "x")} {
		if err := openWay(path); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv("PROBE", program)
	libexec := buildTools(t)
	for name, mode := range fuseModes() {
		t.Run(name, func(t *testing.T) { runScripts(t, "testdata/same", shell, libexec, mode) })
	}
}
