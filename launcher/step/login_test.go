package step

import (
	"context"
	"errors"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/berth-hpc/berth/launcher"
	"github.com/berth-hpc/berth/launcher/wire"
	"golang.org/x/sys/unix"
)

// An asked is what a step's node got when it asked for a login.
type asked struct {
	login string
	err   error
}

// wantsLogin is a node whose image wants a login.
func wantsLogin(got chan<- asked) fakeNode {
	return fakeNode{image: func(ctx context.Context, user User) error {
		login, err := user.Login(ctx)
		got <- asked{login, err}
		return errors.New("the end")
	}}
}

func say(t *testing.T, reply *os.File, m wire.Message) {
	t.Helper()
	data, err := m.Encode()
	if err == nil {
		err = launcher.SendPacket(reply, data)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// quiet says that nobody has sent anything to a task.
func quiet(reply *os.File) bool {
	fds := []unix.PollFd{{Fd: descriptor(reply), Events: unix.POLLIN}}
	n, err := unix.Poll(fds, 0)
	return n == 0 && err == nil
}

// A step asks one task of its node for the login, after that has said what it
// needs, and no other task hears of it.
func TestTaskZeroIsAskedForTheLogin(t *testing.T) {
	got := make(chan asked, 1)
	p := start(t, wantsLogin(got), request)
	first, second := p.task("0"), p.task("1")
	say(t, first, wire.Message{{Key: "cwd", Value: "/"}})
	if m := answerTo(t, first); len(m) != 1 || m.Get("login") != "x:1" {
		t.Fatalf("task 0 hears %q", m)
	}
	if !quiet(second) {
		t.Errorf("task 1 hears %q", answerTo(t, second))
	}
	say(t, first, wire.Message{{Key: "login", Value: `{"login": 1}`}})
	if a := <-got; a.login != `{"login": 1}` || a.err != nil {
		t.Errorf("the node got %+v", a)
	}
	for _, task := range []*os.File{first, second} {
		if m := answerTo(t, task); m.Get("error") != "the end" {
			t.Errorf("hears %q", m)
		}
	}
	p.ended()
}

// Whatever a task says instead of a login, the reason is in words of ours or
// of its search, fit to print, and without what it said else.
func TestNoLogin(t *testing.T) {
	for _, tt := range []struct {
		name, want string
		say        func(t *testing.T, task *os.File)
	}{
		{"a reason", "no answer from [31m a helper", func(t *testing.T, task *os.File) {
			say(t, task, wire.Message{{Key: "login_error", Value: "no answer from\x1b[31m a helper"}})
		}},
		{"something else", "makes no sense", func(t *testing.T, task *os.File) {
			say(t, task, wire.Message{{Key: "cwd", Value: "s3cret"}})
		}},
		{"no message", "makes no sense", func(t *testing.T, task *os.File) {
			if err := launcher.SendPacket(task, []byte("s3cret")); err != nil {
				t.Fatal(err)
			}
		}},
		{"its end", "its task ended", func(_ *testing.T, task *os.File) { task.Close() }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got := make(chan asked, 1)
			p := start(t, wantsLogin(got), request)
			first := p.task("0")
			p.task("1")
			say(t, first, wire.Message{{Key: "cwd", Value: "/"}})
			answerTo(t, first)
			tt.say(t, first)
			select {
			case a := <-got:
				if a.login != "" || a.err == nil || !strings.Contains(a.err.Error(), tt.want) || strings.Contains(a.err.Error(), "s3cret") || strings.Contains(a.err.Error(), "\x1b") {
					t.Errorf("the node got %+v", a)
				}
			case <-time.After(20 * time.Second):
				t.Fatal("it waits")
			}
			p.control.Close()
			p.ended()
		})
	}
}

// A helper whose tasks are all gone does not wait for a login.
func TestLoginEndsWithTheTasks(t *testing.T) {
	got := make(chan asked, 1)
	p := start(t, wantsLogin(got), request)
	first, second := p.task("0"), p.task("1")
	p.control.Close()
	second.Close()
	first.Close()
	p.ended()
	if a := <-got; a.err == nil {
		t.Errorf("the node got %+v", a)
	}
}
