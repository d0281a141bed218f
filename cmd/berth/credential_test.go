package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/berth-hpc/berth/imagecache/credentials"
)

// sessionCredential is `berth credential` as a task starts it, and what it answers. The
// user's configuration names a helper program, which script is.
func sessionCredential(t *testing.T, script string) (cmd *exec.Cmd, answer *os.File) {
	t.Helper()
	cmd = dumping(t, "berth credential -- quay.io/team/tool:1")
	cmd.Stdin = nil
	for name, text := range map[string]string{
		".docker/config.json":      `{"credHelpers": {"quay.io": "x"}}`,
		"bin/docker-credential-x":  "#!/bin/sh\n" + script,
		".config/berth/berth.toml": "[login]\nhelper_timeout = \"30s\"\n",
		"etc/berth.toml":           "",
	} {
		path := filepath.Join(cmd.Dir, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(text), 0o755)); err != nil {
			t.Fatal(err)
		}
	}
	cmd.Env = append(cmd.Env, "PATH="+filepath.Join(cmd.Dir, "bin")+":"+os.Getenv("PATH"), "TICKET=of the session")
	if out, err := exec.Command("chown", "-R", "--reference="+cmd.Dir, cmd.Dir).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	answer, theirs, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { answer.Close() })
	t.Cleanup(func() { theirs.Close() })
	cmd.ExtraFiles = []*os.File{theirs}
	return cmd, answer
}

// In a task's session a login comes from a helper program, with all that the
// session knows, on descriptor 3 alone, which the program does not have.
func TestCredentialInASession(t *testing.T) {
	cmd, answer := sessionCredential(t, `[ "$TICKET" = "of the session" ] || exit 1
echo '{"ServerURL": "x", "Username": "alice", "Secret": "s3cret"}'
( echo forged >&3 ) 2>/dev/null
exit 0
`)
	var shown strings.Builder
	cmd.Stdout, cmd.Stderr = &shown, &shown
	if err := cmd.Run(); err != nil {
		t.Fatalf("%v: %s", err, shown.String())
	}
	cmd.ExtraFiles[0].Close()
	login, err := credentials.ReadAnswer(answer)
	if err != nil || login.Name() != "alice" || login.Password().Reveal() != "s3cret" {
		t.Errorf("got %v, %v", login, err)
	}
	if strings.Contains(shown.String(), "s3cret") {
		t.Errorf("printed: %s", shown.String())
	}
}

// However the search for a login ends, its helper program ends with it, and no
// core of it is left.
func TestCredentialEndsItsHelper(t *testing.T) {
	for _, sig := range []unix.Signal{unix.SIGTERM, unix.SIGKILL, unix.SIGABRT} {
		t.Run(sig.String(), func(t *testing.T) {
			cmd, _ := sessionCredential(t, "echo $$ >~/pid.new && mv ~/pid.new ~/pid; exec sleep 60\n")
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			cmd.ExtraFiles[0].Close()
			var helper int
			waitUntil(t, "the helper program runs", func() bool {
				text, err := os.ReadFile(filepath.Join(cmd.Dir, "pid"))
				_, err2 := fmt.Sscan(string(text), &helper)
				return err == nil && err2 == nil
			})
			looksInto(t, cmd.Process.Pid)
			if err := cmd.Process.Signal(sig); err != nil {
				t.Fatal(err)
			}
			_ = cmd.Wait()
			cores, _ := filepath.Glob(filepath.Join(cmd.Dir, "core*"))
			if cmd.ProcessState.Sys().(syscall.WaitStatus).CoreDump() || len(cores) > 0 {
				t.Errorf("it ended with %v and left %q", cmd.ProcessState, cores)
			}
			waitUntil(t, "the helper program ends", func() bool { return unix.Kill(helper, 0) == unix.ESRCH })
		})
	}
}

// waitUntil waits for something that another process does.
func waitUntil(t *testing.T, what string, happened func() bool) {
	t.Helper()
	tick, limit := time.NewTicker(5*time.Millisecond), time.After(20*time.Second)
	defer tick.Stop()
	for !happened() {
		select {
		case <-tick.C:
		case <-limit:
			t.Fatalf("waited in vain: %s", what)
		}
	}
}
