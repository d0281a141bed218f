package step

import (
	"context"
	"errors"
	"io"
	"os"
	"testing"
	"time"

	"github.com/berth-hpc/berth/fault"
	"github.com/berth-hpc/berth/launcher"
	"github.com/berth-hpc/berth/launcher/wire"
	"github.com/sirupsen/logrus"
	"golang.org/x/sys/unix"
)

// A fakeNode has no image: what is tested here is the conversation. Real
// containers come from the tests of launcher and from whole clusters.
type fakeNode struct {
	image   func(ctx context.Context, user User) error
	reports chan *Report // has room; may be nil
}

func (n fakeNode) Image(ctx context.Context, _ *Request, user User) (Image, error) {
	return nil, n.image(ctx, user)
}

func (fakeNode) Catalogue(context.Context) (*os.File, error) { return nil, nil }

func (fakeNode) Kept(*Request) error { return nil }

func (n fakeNode) Report(r *Report) {
	if n.reports != nil {
		n.reports <- r
	}
}

func (fakeNode) UserNamespaces(context.Context, uint32, launcher.User) (*launcher.UserNamespaces, error) {
	return nil, errors.New("not reached")
}

func untilEnd(ctx context.Context, _ User) error { <-ctx.Done(); return ctx.Err() }

func fail(cause error) func(context.Context, User) error {
	return func(context.Context, User) error { return cause }
}

// A plugin plays slurmstepd and its tasks.
type plugin struct {
	t       *testing.T
	control *os.File
	done    chan error
}

func socketpair(t *testing.T) (a, b *os.File) {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	a, b = os.NewFile(uintptr(fds[0]), "a"), os.NewFile(uintptr(fds[1]), "b")
	t.Cleanup(func() { a.Close() }) // b is the other side's, which may still read
	return a, b
}

var request = wire.Message{
	{Key: "job", Value: "7"},
	{Key: "step", Value: "0"},
	{Key: "uid", Value: "1000"},
	{Key: "gid", Value: "1000"},
	{Key: "groups", Value: "1000,3000"},
	{Key: "tasks", Value: "2"},
	{Key: "image", Value: "x:1"},
}

// start starts a helper and sends the request.
func start(t *testing.T, n Node, request wire.Message) *plugin {
	t.Helper()
	ours, theirs := socketpair(t)
	if err := unix.SetsockoptInt(int(theirs.Fd()), unix.SOL_SOCKET, unix.SO_PASSCRED, 1); err != nil {
		t.Fatal(err)
	}
	p := &plugin{t: t, control: ours, done: make(chan error, 1)}
	p.send(request)
	log := logrus.New()
	log.SetOutput(io.Discard)
	go func() { p.done <- Run(context.Background(), log, theirs, n, Settings{}) }()
	return p
}

func (p *plugin) send(m wire.Message, files ...*os.File) {
	p.t.Helper()
	data, err := m.Encode()
	if err != nil {
		p.t.Fatal(err)
	}
	if err := launcher.SendPacket(p.control, data, files...); err != nil {
		p.t.Fatal(err)
	}
}

// task sends what task id sends and returns its end of the reply socket.
func (p *plugin) task(id string) *os.File {
	p.t.Helper()
	ours, theirs := socketpair(p.t)
	files := []*os.File{theirs}
	if id == "0" {
		mnt, err := os.Open("/proc/self/ns/mnt")
		if err != nil {
			p.t.Fatal(err)
		}
		defer mnt.Close()
		files = append(files, mnt)
	}
	p.send(wire.Message{{Key: "task", Value: id}}, files...)
	theirs.Close()
	return ours
}

func (p *plugin) ended() error {
	p.t.Helper()
	select {
	case err := <-p.done:
		return err
	case <-time.After(20 * time.Second):
		p.t.Fatal("the helper did not end")
		return nil
	}
}

func answerTo(t *testing.T, reply *os.File) wire.Message {
	t.Helper()
	p, err := launcher.ReceivePacket(reply, wire.MaxMessage)
	if err != nil {
		t.Fatal(err)
	}
	m, err := wire.Decode(p.Data)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func TestEveryTaskHearsTheError(t *testing.T) {
	cause := &fault.Error{Op: "pull x:1", Blame: fault.User, Remedy: "check\nthe name", Err: errors.New("no\x00such\x1b[31m image")}
	p := start(t, fakeNode{image: fail(cause)}, request)
	for _, id := range []string{"0", "1"} {
		m := answerTo(t, p.task(id))
		if m.Get("error") != "pull x:1: no such [31m image" || m.Get("remedy") != "check the name" || m.Get("blame") != "user" {
			t.Errorf("task %s hears %q", id, m)
		}
	}
	if err := p.ended(); !errors.Is(err, cause) {
		t.Errorf("ended with %v", err)
	}
}

// The control socket closes when all tasks have asked: those go on waiting.
func TestTasksWaitAfterTheControlSocketCloses(t *testing.T) {
	release := make(chan struct{})
	p := start(t, fakeNode{image: func(ctx context.Context, _ User) error {
		select {
		case <-release:
			return errors.New("late")
		case <-ctx.Done():
			return ctx.Err()
		}
	}}, request)
	first, second := p.task("0"), p.task("1")
	p.control.Close()
	second.Close() // one task dies; the other still waits
	close(release)
	if m := answerTo(t, first); m.Get("error") != "late" {
		t.Errorf("hears %q", m)
	}
	p.ended()
}

func TestHelperEndsWithItsTasks(t *testing.T) {
	for name, end := range map[string]func(p *plugin){
		"no task ever came": func(p *plugin) { p.control.Close() },
		"all tasks died": func(p *plugin) {
			a, b := p.task("0"), p.task("1")
			p.control.Close()
			a.Close()
			b.Close()
		},
		"fewer tasks than promised": func(p *plugin) {
			a := p.task("1")
			p.control.Close()
			a.Close()
		},
	} {
		t.Run(name, func(t *testing.T) {
			p := start(t, fakeNode{image: untilEnd}, request)
			end(p)
			if err := p.ended(); err != nil {
				t.Error(err)
			}
		})
	}
}

// Only root speaks on the control socket, by the kernel's word.
func TestStrangersAreRefused(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root: sends as somebody else")
	}
	p := start(t, fakeNode{image: untilEnd}, request)
	reply, theirs := socketpair(t)
	rights := append(unix.UnixRights(int(theirs.Fd())), unix.UnixCredentials(&unix.Ucred{Pid: int32(os.Getpid()), Uid: 1000, Gid: 1000})...)
	if err := unix.Sendmsg(int(p.control.Fd()), []byte("task=0\x00"), rights, nil, 0); err != nil {
		t.Fatal(err)
	}
	theirs.Close()
	if err := p.ended(); err != nil {
		t.Error(err)
	}
	if _, err := launcher.ReceivePacket(reply, wire.MaxMessage); !errors.Is(err, io.EOF) {
		t.Errorf("a stranger's task got an answer: %v", err)
	}
}

func TestBadRequests(t *testing.T) {
	for name, change := range map[string]wire.Record{
		"no number": {Key: "job", Value: "x"}, "negative": {Key: "uid", Value: "-1"}, "too large": {Key: "gid", Value: "4294967296"},
		"groups": {Key: "groups", Value: "1,x"}, "no tasks": {Key: "tasks", Value: "0"}, "many tasks": {Key: "tasks", Value: "70000"},
		"no image": {Key: "image", Value: ""},
	} {
		if _, err := parseRequest(append(request[:len(request):len(request)], change)); err == nil {
			t.Errorf("%s: taken", name)
		}
	}
	r, err := parseRequest(request)
	if err != nil || r.User.UID != 1000 || len(r.User.Groups) != 2 || r.Home != nil {
		t.Errorf("%+v, %v", r, err)
	}
}

type pinnedImage struct {
	Image
	pinned bool
}

func (p *pinnedImage) Pinned() bool { return p.pinned }

func TestSeveralNodesNeedAPin(t *testing.T) {
	for name, tc := range map[string]struct {
		r    Request
		good bool
	}{
		"one node":           {Request{Nodes: 1, Image: "x:1"}, true},
		"unknown":            {Request{Image: "x:1"}, true},
		"pinned":             {Request{Nodes: 2, Image: "x:1", Digest: "sha256:0"}, true},
		"digest in the name": {Request{Nodes: 2, Image: "x@sha256:0"}, true},
		"a file":             {Request{Nodes: 2, Image: "./x.sqsh"}, true},
		"not wanted":         {Request{Nodes: 2, Image: "x:1", Unpinned: true}, true},
		"a tag alone":        {Request{Nodes: 2, Image: "x:1"}, false},
	} {
		for pinned, good := range map[bool]bool{false: tc.good, true: true} {
			_, err := tc.r.image(Settings{Pins: true}, func() (Image, error) { return &pinnedImage{pinned: pinned}, nil })
			if (err == nil) != good {
				t.Errorf("%s, pinned in the cluster's store %v: %v", name, pinned, err)
			}
		}
		asked := false
		_, err := tc.r.image(Settings{}, func() (Image, error) { asked = true; return &pinnedImage{}, nil })
		if (err == nil) != tc.good || asked && !tc.good {
			t.Errorf("%s, without a cluster's store: %v; the image was asked for: %v", name, err, asked)
		}
	}
}
