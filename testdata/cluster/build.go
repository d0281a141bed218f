package cluster

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// Build builds, below top's build folder, what tests install on machines:
// Berth, a registry and the tool that pushes images. Processes that run tests at
// the same time take turns.
func Build(top string) error {
	build := filepath.Join(top, "build")
	if err := os.MkdirAll(build, 0o755); err != nil {
		return err
	}
	lock, err := os.Create(filepath.Join(build, "lock"))
	if err != nil {
		return err
	}
	defer lock.Close()
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX); err != nil {
		return err
	}
	for _, args := range [][]string{
		{"make", "-s", "-C", top, "build"},
		{"go", "build", "-C", top, "-o", build + "/bin/test-registry", "./testdata/registry"},
		{"go", "build", "-C", top, "-o", build + "/bin/test-images", "./testdata/images/tool"},
	} {
		if out, err := exec.Command(args[0], args[1:]...).CombinedOutput(); err != nil {
			return fmt.Errorf("%s: %w\n%s", strings.Join(args, " "), err, out)
		}
	}
	return nil
}
