package sandbox

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

const (
	testUID = 64125
	testGID = 64126
)

// TestMain makes the test binary a process that enters a cell and then tries
// what its argument names: `BINARY --in-cell BASE ATTEMPT`.
func TestMain(m *testing.M) {
	if len(os.Args) == 4 && os.Args[1] == "--in-cell" {
		if err := inCell(os.Args[2], os.Args[3]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func inCell(base, name string) error {
	busyThreads()
	c := Cell{
		UID: testUID, GID: testGID, Base: base, Work: filepath.Join(filepath.Dir(base), "work"),
		Programs: strings.HasPrefix(name, "programs"), FileSize: 1 << 20, CPU: 60,
	}
	if err := Enter(c); err != nil {
		return fmt.Errorf("not entered: %w", err)
	}
	fmt.Println("entered")
	tried := attempts[name]
	if err := tried.do(base); !errors.Is(err, tried.want) {
		return fmt.Errorf("got %w, want another: %w", err, tried.want)
	}
	return nil
}

// busyThreads makes Go start threads before the cell is entered: what Enter
// does has to reach them, too.
func busyThreads() {
	var ready sync.WaitGroup
	for range 4 {
		ready.Add(1)
		go func() {
			var p [2]int
			_ = unix.Pipe(p[:])
			ready.Done()
			var b [1]byte
			_, _ = unix.Read(p[0], b[:]) // holds a thread for ever
		}()
	}
	ready.Wait()
}

// An attempt is what a process tries in a cell, and how that has to fail; nil if
// it must not.
type attempt struct {
	do   func(base string) error
	want error
}

var attempts = map[string]attempt{
	"socket":       {func(string) error { return second(net.Listen("unix", "@x")) }, unix.EPERM},
	"read a file":  {func(string) error { return second(os.ReadFile("/etc/passwd")) }, unix.ENOENT},
	"see the base": {func(base string) error { return second(os.ReadDir(base)) }, unix.ENOENT},
	"see /proc":    {func(string) error { return second(os.ReadDir("/proc")) }, unix.ENOENT},
	"leave by the parent folder": {
		func(string) error { return second(os.ReadFile(WorkDir + "/../../../../etc/passwd")) }, unix.ENOENT,
	},
	"write to the root": {func(string) error { return os.WriteFile("/x", nil, 0o600) }, unix.EROFS},
	"become root":       {func(string) error { return syscall.Setuid(0) }, unix.EPERM},
	"trace":             {func(string) error { return unix.PtraceSeize(os.Getpid()) }, unix.EPERM},
	"mount":             {func(string) error { return unix.Mount("x", WorkDir, "tmpfs", 0, "") }, unix.EPERM},
	"user namespace":    {func(string) error { return unix.Unshare(unix.CLONE_NEWUSER) }, unix.EPERM},
	"user namespace for a child": {
		func(string) error { return clone(unix.CLONE_NEWUSER) }, unix.EPERM,
	},
	"execute":             {func(string) error { return unix.Exec("/no/such", []string{"x"}, nil) }, unix.EPERM},
	"kernel keys":         {func(string) error { return second(unix.KeyctlGetKeyringID(unix.KEY_SPEC_SESSION_KEYRING, true)) }, unix.EPERM},
	"large file":          {func(string) error { return writeLarge(WorkDir + "/large") }, unix.EFBIG},
	"device":              {func(string) error { return unix.Mknod(WorkDir+"/null", unix.S_IFCHR|0o666, 0x103) }, unix.EPERM},
	"may write":           {func(string) error { return os.WriteFile(WorkDir+"/x", []byte("x"), 0o600) }, nil},
	"may start threads":   {func(string) error { busyThreads(); return nil }, nil},
	"may wait":            {func(string) error { return waitForEnd() }, nil},
	"programs: run":       {func(string) error { return exec.Command("/bin/sh", "-c", "cd /work && echo x > y").Run() }, nil},
	"programs: add one":   {func(string) error { return os.WriteFile("/usr/bin/x", nil, 0o700) }, unix.EROFS},
	"programs: see /etc":  {func(string) error { return second(os.ReadDir("/etc")) }, unix.ENOENT},
	"programs: run a new": {func(string) error { return runWritten() }, unix.EACCES},
}

func second[T any](_ T, err error) error { return err }

func clone(flags uintptr) error {
	if _, _, errno := unix.RawSyscall6(unix.SYS_CLONE, flags|uintptr(unix.SIGCHLD), 0, 0, 0, 0, 0); errno != 0 {
		return errno
	}
	return nil
}

func writeLarge(path string) error {
	signal.Ignore(unix.SIGXFSZ)
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	_, err = f.WriteAt([]byte("x"), 2<<20)
	return errors.Join(err, f.Close())
}

func runWritten() error {
	const program = WorkDir + "/program"
	if err := os.WriteFile(program, []byte("#!/bin/sh\n"), 0o700); err != nil {
		return err
	}
	return exec.Command(program).Run()
}

func waitForEnd() error {
	_, err := bufio.NewReader(os.Stdin).ReadByte()
	if err != nil && err.Error() == "EOF" {
		err = nil
	}
	return err
}

// start starts an attempt in a cell whose work folder is work.
func start(t *testing.T, name string) (cmd *exec.Cmd, work string, output *bytes.Buffer) {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("needs root: makes namespaces and becomes another user")
	}
	top := t.TempDir()
	base, work := filepath.Join(top, "base"), filepath.Join(top, "work")
	for _, dir := range []string{base, work} {
		if err := os.Mkdir(dir, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chown(work, testUID, testGID); err != nil {
		t.Fatal(err)
	}
	output = &bytes.Buffer{}
	cmd = exec.CommandContext(t.Context(), "/proc/self/exe", "--in-cell", base, name)
	cmd.Env = []string{"PATH=/usr/bin:/bin"}
	cmd.SysProcAttr = Attributes()
	cmd.SysProcAttr.Pdeathsig = 0 // this test's thread may end before
	cmd.SysProcAttr.Credential = &syscall.Credential{Groups: []uint32{1, 2}}
	cmd.Stderr = output
	return cmd, work, output
}

func TestCell(t *testing.T) {
	for name := range attempts {
		if name == "may wait" {
			continue
		}
		t.Run(name, func(t *testing.T) {
			cmd, _, output := start(t, name)
			out, err := cmd.Output()
			if !bytes.HasPrefix(out, []byte("entered")) {
				t.Fatalf("%v: %s", err, output)
			}
			if err != nil {
				t.Errorf("%v: %s", err, output)
			}
		})
	}
}

// TestFromOutside looks at all threads of a process in a cell.
func TestFromOutside(t *testing.T) {
	cmd, work, output := start(t, "may wait")
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		stdin.Close()
		if err := cmd.Wait(); err != nil {
			t.Errorf("%v: %s", err, output)
		}
	}()
	if line, err := bufio.NewReader(stdout).ReadString('\n'); line != "entered\n" {
		t.Fatalf("%q, %v: %s", line, err, output)
	}
	proc := "/proc/" + strconv.Itoa(cmd.Process.Pid)
	checkThreads(t, proc)
	for _, ns := range []string{"pid", "net", "mnt", "ipc", "uts"} {
		theirs, err := os.Readlink(proc + "/ns/" + ns)
		ours, err2 := os.Readlink("/proc/self/ns/" + ns)
		if err := errors.Join(err, err2); err != nil || theirs == ours {
			t.Errorf("%s namespace: %s, ours %s, %v", ns, theirs, ours, err)
		}
	}
	if entries, err := os.ReadDir(proc + "/root"); err != nil || len(entries) != 1 || entries[0].Name() != "work" {
		t.Errorf("its root has %v, %v", entries, err)
	}
	mounts, err := os.ReadFile(proc + "/mountinfo")
	if n := bytes.Count(mounts, []byte("\n")); err != nil || n != 2 {
		t.Errorf("%d mounts, %v:\n%s", n, err, mounts)
	}
	if info, err := os.Stat(proc + "/environ"); err != nil || info.Sys().(*syscall.Stat_t).Uid != 0 {
		t.Errorf("it can be traced by its user: %v", err)
	}
	limits, err := os.ReadFile(proc + "/limits")
	for _, want := range []string{"Max core file size 0 0 ", "Max open files             256 ", "Max file size             1048576 ", "Max cpu time              60 "} {
		if !strings.Contains(strings.Join(strings.Fields(string(limits)), " "), strings.Join(strings.Fields(want), " ")) {
			t.Errorf("no %q in its limits, %v:\n%s", want, err, limits)
		}
	}
	if err := os.WriteFile(filepath.Join(work, "seen"), nil, 0o600); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(proc + "/root" + WorkDir + "/seen"); err != nil {
		t.Errorf("the work folder is another: %v", err)
	}
}

func checkThreads(t *testing.T, proc string) {
	t.Helper()
	threads, err := filepath.Glob(proc + "/task/*/status")
	if err != nil || len(threads) < 4 {
		t.Fatalf("%d threads, %v", len(threads), err)
	}
	ids := func(id int) string { return strings.Repeat("\t"+strconv.Itoa(id), 4) }
	for _, path := range threads {
		status, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for _, want := range []string{
			"Uid:" + ids(testUID), "Gid:" + ids(testGID), "Groups:\t ", "CapPrm:\t0000000000000000", "CapEff:\t0000000000000000",
			"NoNewPrivs:\t1", "Seccomp:\t2",
		} {
			if !strings.Contains(string(status), "\n"+want+"\n") {
				t.Errorf("%s: no %q in\n%s", path, want, status)
			}
		}
	}
}

// TestEnterRefuses what was not started for it, before it changes anything.
func TestEnterRefuses(t *testing.T) {
	if err := Enter(Cell{UID: testUID, GID: testGID, Base: t.TempDir()}); err == nil {
		t.Fatal("the test itself is in a cell now")
	}
}
