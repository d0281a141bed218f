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
// with shell:v1 and debian:v1 in the registry.
func TestDeviceScripts(t *testing.T) {
	libraryScripts(t, "testdata/devices", map[string]string{"shell:v1": "tiny", "debian:v1": "base"})
}

// TestNVIDIA runs testdata/nvidia/*.txtar where there is a GPU.
func TestNVIDIA(t *testing.T) {
	if _, err := os.Stat("/dev/nvidia0"); err != nil {
		t.Skip("needs an NVIDIA GPU: no /dev/nvidia0")
	}
	if _, err := exec.LookPath("nvidia-ctk"); err != nil {
		t.Skip("needs nvidia-ctk (NVIDIA's container toolkit), which makes the spec")
	}
	libraryScripts(t, "testdata/nvidia", map[string]string{"debian:v1": "base"})
}

// TestHostMPI runs testdata/hostmpi/*.txtar with images of both MPIs.
func TestHostMPI(t *testing.T) {
	if _, err := os.Stat("/usr/lib/x86_64-linux-gnu/libmpi.so.40"); err != nil {
		t.Skip("needs Debian's Open MPI on this machine (package libopenmpi3)")
	}
	libraryScripts(t, "testdata/hostmpi", map[string]string{"shell:v1": "tiny", "mpi:v1": "mpi", "mpich:v1": "mpich"})
}

// libraryScripts runs the scripts of dir in all modes, with test images in the
// registry by these names.
func libraryScripts(t *testing.T, dir string, names map[string]string) {
	if _, err := exec.LookPath("gcc"); err != nil {
		t.Skip("needs gcc, for libraries to be found")
	}
	libexec := buildTools(t)
	modes := map[string]string{"mounted": "666", "unpacked": "600"}
	if os.Getuid() != 0 {
		modes = map[string]string{"asis": ""}
	}
	for mode, fuse := range modes {
		t.Run(mode, func(t *testing.T) {
			testscript.Run(t, testscript.Params{
				Dir: dir, Condition: condition, Cmds: commands(),
				Setup: func(env *testscript.Env) error {
					env.Setenv("BERTH_LIBEXEC", libexec)
					env.Setenv("FUSE_MODE", fuse)
					if err := setUp(env); err != nil {
						return err
					}
					return pushImages(t, env.Values["registry"].(*server.Started).Host, names)
				},
			})
		})
	}
}

func pushImages(t *testing.T, host string, names map[string]string) error {
	for name, made := range names {
		img, err := images.ReadLayout(images.Layout(t, made), images.Tag)
		if err != nil {
			return err
		}
		if _, err := images.Push(t.Context(), host, name, img); err != nil {
			return err
		}
	}
	return nil
}
