package step

import (
	"bytes"
	"errors"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/berth-hpc/berth/launcher"
	"github.com/berth-hpc/berth/launcher/wire"
	"golang.org/x/sys/unix"
)

// FuzzRequest: what slurmstepd or PBS's hook says is a request within bounds, or
// none, and never more of the user's text than came.
func FuzzRequest(f *testing.F) {
	for _, text := range []string{
		"job=1|step=2|tasks=3|uid=4|gid=5|image=debian|groups=5,6|mounts=/a:/b|device=x/y=z|env=A|home=0|root=writable|remap=1|memory=100|nodes=2|unshare=net|name=a:exec",
		"job=12[3].pbs|uid=4|gid=5|image=./x.sqsh|entrypoint=1|env=A,B|pin=no",
		"job=1|step=4294967291|tasks=65537|uid=-1|gid=|image=a|groups=,,4294967296|memory=4294967295",
		"job=1|job=2|step=1|tasks=1|uid=0|gid=0|unshare=pid|image=a",
	} {
		f.Add([]byte(strings.ReplaceAll(text, "|", "\x00") + "\x00"))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		m, err := wire.Decode(data)
		if err != nil {
			return
		}
		for _, parse := range []func(wire.Message) (*Request, error){parseRequest, ParseWhole} {
			r, err := parse(slices.Clone(m))
			if err != nil {
				continue
			}
			if r.Tasks < 1 || r.Tasks > maxTasks || r.User.UID < 0 || r.Memory < 0 || r.Nodes < 0 || len(r.User.Groups) > len(data) {
				t.Errorf("%+v", r)
			}
			if r.Image == "" && (r.Kept == nil || r.Kept.Name == "") {
				t.Errorf("nothing to run in: %q", data)
			}
			set := Settings{Scratch: func(int64) launcher.Scratch { return launcher.Scratch{} }}
			if made := r.launcherRequest(&view{}, set); made.User.UID != r.User.UID || len(made.Mounts) != len(r.Mounts) {
				t.Errorf("%+v became %+v", r, made)
			}
		}
	})
}

// FuzzLogin: a task's answer is a login or a reason in one line.
func FuzzLogin(f *testing.F) {
	f.Add([]byte("login={}\x00"))
	f.Add([]byte("login_error=a\x1b[2J\nb\x00login=x\x00"))
	f.Fuzz(func(t *testing.T, data []byte) {
		login, err := parseLogin(data)
		if (err == nil) == (login == "") {
			t.Errorf("%q, %v", login, err)
		}
		if err != nil && strings.ContainsAny(err.Error(), "\x1b\n\x00") {
			t.Errorf("%q", err)
		}
	})
}

// FuzzTasks: whatever comes on the control socket, with however many descriptors,
// and whatever the task at the other end of them says, the helper comes to an
// end when they are gone, and holds nothing of theirs. The input: packets after
// line feeds, of which the first byte is the number of descriptors.
func FuzzTasks(f *testing.F) {
	f.Add([]byte("\x02task=0\x00\n\x01task=1\x00\n\x01task=1\x00"), []byte("cwd=/\x00tmpdir=/tmp\x00"))
	f.Add([]byte("\x02task=0\x00\n\x02task=0\x00"), []byte("cwd"))
	f.Add([]byte("\x03task=4294967296\x00"), []byte{})
	f.Fuzz(func(t *testing.T, packets, said []byte) {
		if len(packets)+len(said) > 4096 || bytes.Count(packets, []byte{'\n'}) > 8 {
			return
		}
		before := descriptors(t)
		ours, theirs := socketPair(t)
		c, err := newControl(ours)
		if err != nil {
			t.Fatal(err)
		}
		var tasksEnds []*os.File
		for packet := range bytes.SplitSeq(packets, []byte{'\n'}) {
			if len(packet) < 2 {
				continue
			}
			mine, reply := socketPair(t)
			files := slices.Repeat([]*os.File{reply}, int(packet[0])%5)
			if err := launcher.SendPacket(theirs, packet[1:], files...); err != nil {
				t.Fatal(err)
			}
			_ = launcher.SendPacket(mine, said)
			reply.Close()
			tasksEnds = append(tasksEnds, mine)
		}
		theirs.Close()
		tasks := newTasks(3)
		_ = c.accept(tasks)
		tasks.settle(nil, kind{}, errors.New("no container"))
		for _, end := range tasksEnds {
			end.Close()
		}
		tasks.abandon()
		if tasks.first != nil {
			<-tasks.read
			tasks.first.Close()
		}
		select {
		case v := <-tasks.view:
			v.mounts.Close()
		default:
		}
		ours.Close()
		if after := descriptors(t); after != before {
			t.Errorf("%d descriptors became %d", before, after)
		}
	})
}

func socketPair(t *testing.T) (a, b *os.File) {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	var files [2]*os.File
	for i, fd := range fds {
		if files[i], err = launcher.NewSocket(fd); err != nil {
			t.Fatal(err)
		}
		_ = files[i].SetDeadline(time.Now().Add(20 * time.Second)) // nothing waits for ever
	}
	return files[0], files[1]
}

func descriptors(t *testing.T) int {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(entries)
}
