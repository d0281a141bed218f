package launcher

import (
	"fmt"
	"os"
	"runtime"
	"strconv"

	"github.com/berth-hpc/berth/launcher/signals"
	"golang.org/x/sys/unix"
)

// Exec makes the calling process a task of the container: it becomes
// program berth-join, which joins the namespaces and executes argv, found
// through PATH inside. It returns only on failure. env is the environment
// before the image's variables are put over it; names in keep stay as they
// are in env. Signals that the caller of this process ignored or blocked are so
// for the task.
func (c *Container) Exec(join string, users *UserNamespaces, remap bool, argv, env, keep []string) error {
	files := map[string]*os.File{"--user=": users.Outer, "--mnt=": c.Mount, "--result=": c.Result}
	if !remap {
		files["--user2="] = users.Inner
	}
	for _, ns := range c.Own {
		files["--"+ns.Kind+"="] = ns.File
	}
	args := []string{"berth-join"}
	if c.NewPID {
		args = append(args, "--new-pid")
	}
	for flag, f := range files {
		if _, err := unix.FcntlInt(f.Fd(), unix.F_SETFD, 0); err != nil {
			return os.NewSyscallError("fcntl(F_SETFD)", err)
		}
		args = append(args, flag+strconv.Itoa(int(f.Fd())))
	}
	for _, name := range keep {
		args = append(args, "--keep-env="+name)
	}
	if c.Dir != "" {
		args = append(args, "--cwd="+c.Dir)
	}
	args = append(append(args, "--"), argv...)
	runtime.LockOSThread() // the mask is a thread's
	defer runtime.UnlockOSThread()
	signals.Restore()
	if err := unix.Exec(join, args, env); err != nil {
		return fmt.Errorf("start %s: %w", join, err)
	}
	return nil
}
