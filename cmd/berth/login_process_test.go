package main

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// userCommand is berth in a home folder of its own, as the scripts run it.
func userCommand(t *testing.T, program string, args ...string) *exec.Cmd {
	t.Helper()
	dir := t.TempDir()
	if err := handOver(dir); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), program, args...)
	cmd.Dir = dir
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + dir, "SITE=" + filepath.Join(dir, "etc")}
	return cmd
}

// openPTY returns both ends of a new pseudo-terminal.
func openPTY(t *testing.T) (master, slave *os.File) {
	t.Helper()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Skipf("needs pseudo-terminals: %v", err)
	}
	t.Cleanup(func() { master.Close() })
	conn, err := master.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var n int
	var failed error
	if err := conn.Control(func(fd uintptr) {
		if failed = unix.IoctlSetPointerInt(int(fd), unix.TIOCSPTLCK, 0); failed == nil {
			n, failed = unix.IoctlGetInt(int(fd), unix.TIOCGPTN)
		}
	}); err != nil || failed != nil {
		t.Fatal(err, failed)
	}
	slave, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { slave.Close() })
	return master, slave
}

// A dialogue is what a program and its user write on a terminal.
type dialogue struct {
	t      *testing.T
	master *os.File
	said   strings.Builder
}

// expect reads until the program has said text.
func (d *dialogue) expect(text string) {
	d.t.Helper()
	if err := d.master.SetReadDeadline(time.Now().Add(20 * time.Second)); err != nil {
		d.t.Fatal(err)
	}
	b := make([]byte, 1024)
	for !strings.Contains(d.said.String(), text) {
		n, err := d.master.Read(b)
		d.said.Write(b[:n])
		if err != nil && !strings.Contains(d.said.String(), text) {
			d.t.Fatalf("waited for %q: %v after %q", text, err, d.said.String())
		}
	}
}

func (d *dialogue) answer(text string) {
	d.t.Helper()
	if _, err := d.master.WriteString(text); err != nil {
		d.t.Fatal(err)
	}
}

func echoes(t *testing.T, terminal *os.File) bool {
	t.Helper()
	s, err := unix.IoctlGetTermios(int(terminal.Fd()), unix.TCGETS)
	if err != nil {
		t.Fatal(err)
	}
	return s.Lflag&unix.ECHO != 0
}

// A password that is typed is not shown, and the terminal is as before when
// the command ends, however it ends.
func TestPasswordPrompt(t *testing.T) {
	reg, _, err := privateRegistry(t, false)
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct{ name, answer, says string }{
		{"password", passwordOf("alice") + "\n", "logged in to"},
		{"wrong password", "wr0ng\n", "401 Unauthorized"},
		{"interrupt", "\x03", "stopped by a signal"},
		{"end of file", "\x04", "EOF"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			master, slave := openPTY(t)
			cmd := userCommand(t, "berth", "login", reg.Host)
			cmd.Stdin, cmd.Stdout, cmd.Stderr = nil, slave, slave
			cmd.ExtraFiles = []*os.File{slave}
			cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true, Ctty: 3}
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			d := &dialogue{t: t, master: master}
			d.expect("User name at " + reg.Host + ": ")
			d.answer("alice\n")
			d.expect("Password or access token: ")
			d.answer(tt.answer)
			d.expect(tt.says)
			_ = cmd.Wait()
			if strings.Contains(d.said.String(), strings.TrimSpace(tt.answer)) && len(tt.answer) > 1 {
				t.Errorf("shown: %q", d.said.String())
			}
			if !strings.Contains(d.said.String(), "alice\r\n") {
				t.Errorf("the name was not shown: %q", d.said.String())
			}
			if !echoes(t, slave) {
				t.Error("the terminal does not echo any more")
			}
		})
	}
}

// hangingRegistry answers nothing, and tells when it is asked.
func hangingRegistry(t *testing.T) (host string, asked <-chan struct{}) {
	t.Helper()
	tell, end := make(chan struct{}, 16), make(chan struct{})
	srv := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		tell <- struct{}{}
		select {
		case <-r.Context().Done():
		case <-end:
		}
	}))
	t.Cleanup(srv.Close)
	t.Cleanup(func() { close(end) })
	return strings.TrimPrefix(srv.URL, "http://"), tell
}

// crash aborts a command that dumps core if it can, and reports whether it did.
func crash(t *testing.T, cmd *exec.Cmd) (dumped bool) {
	t.Helper()
	if err := cmd.Process.Signal(unix.SIGABRT); err != nil {
		t.Fatal(err)
	}
	err := cmd.Wait()
	exit, ok := errors.AsType[*exec.ExitError](err)
	if !ok {
		t.Fatalf("it ended with %v", err)
	}
	status := exit.Sys().(syscall.WaitStatus)
	cores, _ := filepath.Glob(filepath.Join(cmd.Dir, "core*"))
	return status.CoreDump() || len(cores) > 0
}

// dumping is a command under a shell that allows core dumps, of a Go program
// that makes one when it crashes.
func dumping(t *testing.T, command string) *exec.Cmd {
	t.Helper()
	cmd := userCommand(t, "sh", "-c", "ulimit -c unlimited; exec "+command)
	cmd.Env = append(cmd.Env, "GOTRACEBACK=crash")
	cmd.Stdin = strings.NewReader(passwordOf("alice"))
	return cmd
}

// A process that holds a secret leaves no core dump, and lets nobody but root
// look into it, not even its own user.
func TestProcessesWithSecrets(t *testing.T) {
	t.Run("control", func(t *testing.T) {
		cmd := dumping(t, "sh -c 'kill -ABRT $$'")
		exit, ok := errors.AsType[*exec.ExitError](cmd.Run())
		if !ok || !exit.Sys().(syscall.WaitStatus).CoreDump() {
			t.Skip("this machine writes no core dumps")
		}
	})
	host, asked := hangingRegistry(t)
	for name, args := range map[string]string{
		"login":   "berth login --username alice --password-stdin " + host,
		"resolve": "berth resolve --timeout 1m " + host + "/x:1",
		"pull":    "berth pull " + host + "/x:1",
		"run":     "berth run " + host + "/x:1 true",
		"save":    "berth save " + host + "/x:1 ./x.sqsh",
		"push":    "berth push " + host + "/x:1 " + host + "/y:1",
	} {
		t.Run(name, func(t *testing.T) {
			cmd := dumping(t, args)
			cmd.Env = append(cmd.Env, "BERTH_REGISTRY_AUTH="+host+"=alice:"+passwordOf("alice"))
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			select {
			case <-asked:
			case <-time.After(20 * time.Second):
				t.Fatal("the registry was not asked")
			}
			looksInto(t, cmd.Process.Pid)
			if crash(t, cmd) {
				t.Error("it dumped core")
			}
		})
	}
}

// looksInto has the process's own user read its environment and memory.
func looksInto(t *testing.T, pid int) {
	t.Helper()
	cmdline, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	if err != nil || !strings.Contains(string(cmdline), "berth") || strings.Contains(string(cmdline), passwordOf("alice")) {
		t.Errorf("command line %q, %v", cmdline, err)
	}
	for _, name := range []string{"environ", "mem", "fd/0"} {
		look := exec.CommandContext(t.Context(), "head", "-c", "1", fmt.Sprintf("/proc/%d/%s", pid, name))
		if os.Getuid() == 0 {
			look.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: testUID, Gid: testUID}}
		}
		out, err := look.CombinedOutput()
		if err == nil || !strings.Contains(string(out), "ermission denied") {
			t.Errorf("its user may read %s: %q", name, out)
		}
	}
}

// A command in a container does not see the variables that hold logins.
func TestContainerSeesNoLogins(t *testing.T) {
	s := &session{process: process{environ: func() []string {
		return []string{"A=1", "BERTH_REGISTRY_AUTH=h=u:p", "DOCKER_AUTH_CONFIG={}", "B=2"}
	}}}
	environ := variables(nil).over(s.withoutLogins())
	if got := strings.Join(environ, " "); got != "A=1 B=2" {
		t.Errorf("got %q", got)
	}
}

func TestReadPassword(t *testing.T) {
	for text, want := range map[string]string{"p": "p", "p\n": "p", "p\r\n": "p", "p q \n\n": "p q \n", "": ""} {
		if got, err := readPassword(strings.NewReader(text)); got != want || err != nil {
			t.Errorf("%q: got %q, %v", text, got, err)
		}
	}
	if _, err := readPassword(io.LimitReader(zeros{}, maxPassword+1)); err == nil {
		t.Error("a password without an end")
	}
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { return len(p), nil }
