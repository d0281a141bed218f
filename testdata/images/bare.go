package images

import (
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// BareProgram compiles the program of Bare, and returns where it is.
func BareProgram(tb testing.TB) string {
	tb.Helper()
	return compileOdd(tb, "cc", "prog", "-static", "-O2")
}

// Bare is an image of static programs alone, as FROM scratch makes them: no
// shell, no C library, no /etc, /tmp or /proc. It has an entrypoint, a command,
// a user, a signal to stop and a volume.
func Bare(tb testing.TB) v1.Image {
	tb.Helper()
	files := []File{Dir("state"), Text("state/kept", "kept\n")}
	for name, path := range map[string]string{"prog": BareProgram(tb), "raw": compileOdd(tb, "cc", "raw", "-static", "-nostdlib", "-ffreestanding")} {
		text, err := os.ReadFile(path)
		if err != nil {
			tb.Fatal(err)
		}
		files = append(files, Program(name, string(text)))
	}
	img, err := FromFiles(v1.Config{
		Entrypoint: []string{"/prog", "entry"}, Cmd: []string{"command"}, User: "1234:1234", StopSignal: "SIGINT",
		Volumes: map[string]struct{}{"/state": {}, "/data/new": {}}, Env: []string{"HOME=/home/of-the-image", "WHOSE=the image"},
	}, files)
	if err != nil {
		tb.Fatal(err)
	}
	return img
}

// Musl is an image with a dynamic program of musl's and its loader, as Alpine's
// images have them, and nothing else.
func Musl(tb testing.TB) v1.Image {
	tb.Helper()
	const loader = "/lib/ld-musl-x86_64.so.1"
	program := compileOdd(tb, "musl-gcc", "musl", "-O2")
	var files []File
	for name, path := range map[string]string{"bin/musl": program, loader[1:]: loader} {
		text, err := os.ReadFile(path)
		if err != nil {
			tb.Fatal(err)
		}
		files = append(files, Program(name, string(text)))
	}
	img, err := FromFiles(v1.Config{Env: []string{"PATH=/bin"}, Cmd: []string{"musl"}}, files)
	if err != nil {
		tb.Fatal(err)
	}
	return img
}

func compileOdd(tb testing.TB, compiler, name string, flags ...string) string {
	tb.Helper()
	if runtime.GOARCH != "amd64" {
		tb.Skip("its programs are for amd64")
	}
	_, self, _, _ := runtime.Caller(0)
	out := filepath.Join(tb.TempDir(), name)
	args := append(flags, "-o", out, filepath.Join(filepath.Dir(self), "odd", name+".c"))
	if text, err := exec.CommandContext(tb.Context(), compiler, args...).CombinedOutput(); err != nil {
		tb.Fatalf("compile %s: %v\n%s", name, err, text)
	}
	return out
}
