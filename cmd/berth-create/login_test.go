package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/berth-hpc/berth/cmd/internal/config"
	"github.com/berth-hpc/berth/fault"
	"github.com/berth-hpc/berth/imagecache/credentials"
	"github.com/berth-hpc/berth/launcher/step"
	"github.com/berth-hpc/berth/prolog/jobstate"
)

// TestMain makes the test binary stand in for berth-create.
func TestMain(m *testing.M) {
	if len(os.Args) == 2 && os.Args[1] == "step" {
		exit(runStep(context.Background()))
	}
	os.Exit(m.Run())
}

// A taskZero says answer when it is asked for a login.
type taskZero struct {
	answer string
	err    error
	asked  int
}

func (*taskZero) Tell(string) {}

func (u *taskZero) Login(context.Context) (string, error) {
	u.asked++
	return u.answer, u.err
}

// refusedNode is a node whose preparation ended with a login being wanted, in
// words that say what the node's own look found. Its berth notes that it is
// called, and what it reads, and does no more.
func refusedNode(t *testing.T) (*node, jobstate.Request, *jobstate.LoginWantedError) {
	t.Helper()
	dir := t.TempDir()
	berth := filepath.Join(dir, "berth")
	if err := os.WriteFile(berth, []byte("#!/bin/sh\necho \"$*\" >>"+dir+"/calls; cat >>"+dir+"/input\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	n := &node{cfg: &config.Config{Node: config.Node{RunDir: dir}}, berth: berth}
	req := jobstate.Request{Job: "7", UID: 1000, GID: 1000, Image: "quay.io/team/tool:1"}
	folder, err := jobstate.Create(dir, req)
	if err == nil {
		err = folder.SetState(jobstate.State{
			Time:    time.Now(),
			Failure: &fault.Message{Text: "it answered 401 (no login was found: helpers do not run)", Remedy: "log in", Blame: "user"},
			LoginWanted: &jobstate.LoginWanted{
				Registry: "quay.io", Repository: "team/tool", Tried: "alice, from a file",
				Answer: fault.Message{Text: "it answered 401", Remedy: "log in", Blame: "user"},
			},
		})
	}
	if err != nil {
		t.Fatal(err)
	}
	_, err = folder.Wait(t.Context(), nil)
	wanted, ok := errors.AsType[*jobstate.LoginWantedError](err)
	if !ok {
		t.Fatalf("got %v", err)
	}
	return n, req, wanted
}

func answerOf(t *testing.T, source string, failure error) string {
	t.Helper()
	login := credentials.NewLogin("alice", credentials.NewSecret("s3cret"), source)
	if source == "" {
		login = credentials.Login{}
	}
	var b strings.Builder
	if err := credentials.WriteAnswer(&b, login, failure); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// Where a session has nothing that could help, the registry is not asked once
// more, and the user hears its answer and why.
func TestNothingToTryAgainWith(t *testing.T) {
	slow := &fault.Error{Op: "ask docker-credential-x", Err: errors.New("no answer within 5s"), Remedy: "mend it"}
	for _, tt := range []struct {
		name string
		user taskZero
		want string
	}{
		{"no login", taskZero{answer: answerOf(t, "", nil)}, "it answered 401 (user): log in"},
		{"the same login", taskZero{answer: answerOf(t, "a file", nil)}, "it answered 401 (user): log in"},
		{"a failure", taskZero{answer: answerOf(t, "", slow)}, "it answered 401 (your job's session gave no login: ask docker-credential-x: no answer within 5s) (user): mend it; or log in"},
		{"rubbish", taskZero{answer: "s3cret"}, "it answered 401 (your job's session gave no login: its answer is not JSON) (user): log in"},
		{"no session", taskZero{err: step.ErrNoSession}, "it answered 401 (no login was found: helpers do not run) (user): log in"},
		{"no answer", taskZero{err: errors.New("its task ended")}, "it answered 401 (your job's session gave no login: its task ended) (user): log in"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			n, req, wanted := refusedNode(t)
			_, err := n.withLogin(t.Context(), req, &tt.user, wanted)
			if got := fmt.Sprintf("%v (%v): %s", err, fault.Of(err), fault.Remedy(err)); got != tt.want {
				t.Errorf("got %s\nwant %s", got, tt.want)
			}
			if _, err := os.Stat(filepath.Join(n.cfg.Node.RunDir, "calls")); err == nil || tt.user.asked != 1 {
				t.Errorf("asked %d times, prepared again: %v", tt.user.asked, err == nil)
			}
		})
	}
}

// A login goes to `berth node prepare` on its input, not in its arguments, and
// not for ever where others keep preparing without one. The task is asked once.
func TestLoginIsHandedOver(t *testing.T) {
	n, req, wanted := refusedNode(t)
	user := &taskZero{answer: answerOf(t, "another file", nil)}
	if _, err := n.withLogin(t.Context(), req, user, wanted); err == nil {
		t.Error("the fake has prepared something")
	}
	calls, err := os.ReadFile(filepath.Join(n.cfg.Node.RunDir, "calls"))
	if err != nil || string(calls) != strings.Repeat("node prepare\n", againTries) || user.asked != 1 {
		t.Errorf("asked %d times; calls %q, %v", user.asked, calls, err)
	}
	input, err := os.ReadFile(filepath.Join(n.cfg.Node.RunDir, "input"))
	if err != nil || strings.Count(string(input), "\x00login="+user.answer+"\x00") != againTries {
		t.Errorf("input %q, %v", input, err)
	}
}

var _ step.User = (*taskZero)(nil)

// The helper is closed to others, and leaves no core, before it hears anything.
func TestHelperIsGuarded(t *testing.T) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	ours, theirs := os.NewFile(uintptr(fds[0]), "ours"), os.NewFile(uintptr(fds[1]), "theirs")
	cmd := exec.CommandContext(t.Context(), "sh", "-c", `ulimit -c unlimited && exec "$0" step`, os.Args[0])
	cmd.ExtraFiles = []*os.File{theirs}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	theirs.Close()
	proc := fmt.Sprintf("/proc/%d", cmd.Process.Pid)
	limit, tick := time.After(20*time.Second), time.NewTicker(5*time.Millisecond)
	defer tick.Stop()
	for !guarded(proc) {
		select {
		case <-tick.C:
		case <-limit:
			t.Error("it can be dumped or traced")
			_ = cmd.Process.Kill()
		}
		if t.Failed() {
			break
		}
	}
	ours.Close()
	_ = cmd.Wait()
}

// guarded: no core of the process is dumped, and its files belong to root.
func guarded(proc string) bool {
	limits, err := os.ReadFile(proc + "/limits")
	var st unix.Stat_t
	return err == nil && strings.Contains(string(limits), "Max core file size        0                    0 ") &&
		unix.Stat(proc+"/environ", &st) == nil && st.Uid == 0
}
