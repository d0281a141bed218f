package main

import (
	"testing"

	"github.com/berth-hpc/berth/testdata/images"
)

// TestOddImages runs testdata/odd/*.txtar: an image that has as little as an
// image can have. $BARE is its program, to be run outside.
func TestOddImages(t *testing.T) {
	bare, program := images.Bare(t), images.BareProgram(t)
	if err := openWay(program); err != nil {
		t.Fatal(err)
	}
	t.Setenv("BARE", program)
	libexec := buildTools(t)
	for name, mode := range fuseModes() {
		t.Run(name, func(t *testing.T) { runScripts(t, "testdata/odd", bare, libexec, mode) })
	}
}
