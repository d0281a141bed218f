package leaks

import (
	"io"
	"os"
	"os/exec"
	"strings"
	"testing"
)

// Each kind is seen while it is there, and no longer.
func TestSettle(t *testing.T) {
	for name, leak := range map[string]func() (end func()){
		": /dev/null": func() func() {
			f, err := os.Open("/dev/null")
			if err != nil {
				t.Fatal(err)
			}
			return func() { f.Close() }
		},
		"child: ": func() func() {
			cmd := exec.Command("cat")
			in, err := cmd.StdinPipe()
			if err == nil {
				err = cmd.Start()
			}
			if err != nil {
				t.Fatal(err)
			}
			return func() { in.Close(); _ = cmd.Wait() }
		},
		"goroutine": func() func() {
			in, out := io.Pipe()
			go func() { _, _ = io.Copy(io.Discard, in) }()
			return func() { out.Close() }
		},
	} {
		t.Run(name, func(t *testing.T) {
			before := now()
			end := leak()
			if left := strings.Join(before.left(), "\n"); !strings.Contains(left, name) {
				t.Errorf("not seen: %q", left)
			}
			end()
			if left := before.settle(); len(left) > 0 {
				t.Errorf("seen although it is gone: %q", left)
			}
		})
	}
}

// A run that leaves something fails, one that fails anyway stays what it was.
func TestChecked(t *testing.T) {
	if code := Checked(run(func() int { return 0 })).Run(); code != 0 {
		t.Errorf("nothing left: %d", code)
	}
	if code := Checked(run(func() int { return 2 })).Run(); code != 2 {
		t.Errorf("failed: %d", code)
	}
}

type run func() int

func (r run) Run() int { return r() }
