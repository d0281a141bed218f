package main

import (
	"os"
	"os/exec"
	"testing"

	"github.com/berth-hpc/berth/testdata/images"
	"github.com/berth-hpc/berth/testdata/registry/server"
	"github.com/rogpeppe/go-internal/testscript"
)

// TestDeviceScripts runs testdata/devices/*.txtar as TestRunScripts does,
// with debian:v1 in the registry.
func TestDeviceScripts(t *testing.T) {
	if _, err := exec.LookPath("gcc"); err != nil {
		t.Skip("needs gcc, for libraries to be found")
	}
	debian, err := images.ReadLayout(images.Layout(t, "base"), images.Tag)
	if err != nil {
		t.Fatal(err)
	}
	libexec := buildTools(t)
	modes := map[string]string{"mounted": "666", "unpacked": "600"}
	if os.Getuid() != 0 {
		modes = map[string]string{"asis": ""}
	}
	for name, mode := range modes {
		t.Run(name, func(t *testing.T) {
			testscript.Run(t, testscript.Params{
				Dir: "testdata/devices", Condition: condition, Cmds: commands(),
				Setup: func(env *testscript.Env) error {
					env.Setenv("BERTH_LIBEXEC", libexec)
					env.Setenv("FUSE_MODE", mode)
					if err := setUp(env); err != nil {
						return err
					}
					_, err := images.Push(t.Context(), env.Values["registry"].(*server.Started).Host, "debian:v1", debian)
					return err
				},
			})
		})
	}
}
