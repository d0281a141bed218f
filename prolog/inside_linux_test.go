package prolog

import (
	"io"
	"os"
	"os/exec"
	"strconv"
	"syscall"
	"testing"

	"github.com/berth-hpc/berth/launcher"
)

// userNamespace makes one as the jobs' are, with a process in it. ended waits
// for the end of that process.
func userNamespace(t *testing.T) (ns *os.File, ended func()) {
	t.Helper()
	cmd := exec.Command("cat")
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: syscall.CLONE_NEWUSER, Setsid: true,
		UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: 1000, Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: 1000, Size: 1}},
	}
	in, err := cmd.StdinPipe()
	must(t, err)
	must(t, cmd.Start())
	t.Cleanup(func() { in.Close(); _ = cmd.Wait() })
	ns, err = os.Open("/proc/" + strconv.Itoa(cmd.Process.Pid) + "/ns/user")
	must(t, err)
	t.Cleanup(func() { ns.Close() })
	return ns, func() {
		err := cmd.Wait()
		if status := cmd.ProcessState.Sys().(syscall.WaitStatus); status.Signal() != syscall.SIGKILL {
			t.Errorf("it ended by itself: %v", err)
		}
	}
}

// TestCleanupEndsWhatIsInside: also what took a session of its own, or a user
// namespace below the job's.
func TestCleanupEndsWhatIsInside(t *testing.T) {
	if !privateMounts(t) {
		return
	}
	n := newNode(t)
	mounts, err := launcher.OpenMounts(t.Context(), n.cfg.RunDir)
	must(t, err)
	defer mounts.Close()
	must(t, os.MkdirAll(n.cfg.RunDir+"/jobs", 0o711))
	ns, ended := userNamespace(t)
	below := exec.Command("nsenter", "--user=/proc/self/fd/3", "unshare", "-U", "sh", "-c", "echo in; exec sleep 1000")
	below.ExtraFiles = []*os.File{ns}
	out, err := below.StdoutPipe()
	must(t, err)
	must(t, below.Start())
	_, err = io.ReadFull(out, make([]byte, 3))
	must(t, err)
	other, _ := userNamespace(t)
	must(t, mounts.Pin(t.Context(), "1", launcher.Pin{Name: "user1", NS: ns}))
	must(t, mounts.Pin(t.Context(), "2", launcher.Pin{Name: "user1", NS: other}))
	n.cleanup(1)
	ended()
	if err := below.Wait(); err == nil || below.ProcessState.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
		t.Errorf("below: %v", err)
	}
	// That of the other job is another one's: its Cleanup above finds it alive.
	if crowd, err := launcher.NewCrowd(other); err != nil || !inhabited(t, crowd) {
		t.Errorf("the other job's process is gone: %v", err)
	}
}

func inhabited(t *testing.T, crowd launcher.Crowd) bool {
	pids, err := launcher.Processes()
	must(t, err)
	for _, pid := range pids {
		if crowd.Has(pid) {
			return true
		}
	}
	return false
}
