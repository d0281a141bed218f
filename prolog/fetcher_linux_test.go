package prolog

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/berth-hpc/berth/fault"
)

// misbehave is a fetcher that has been taken over. It runs as the account, in
// its work folder, with root listening on events.
func misbehave(misdeed string, events io.Writer) error {
	switch misdeed {
	case "describe":
		return describe()
	case "silent":
		return nil
	case "garbage":
		fmt.Fprintln(events, "{]")
		select {}
	case "endless":
		for {
			if _, err := events.Write(make([]byte, 4096)); err != nil {
				select {}
			}
		}
	case "chatty":
		for range 3 << 20 / 4096 {
			os.Stderr.WriteString(strings.Repeat("x", 4095) + "\n")
		}
	case "escape":
		fmt.Fprintln(events, `{"failure":{"text":"a\u001b[31mb\nc","remedy":"d\u0007","blame":"user"}}`)
	}
	return publishBadly(misdeed, events)
}

// publishBadly claims success for a folder that must not be published.
func publishBadly(misdeed string, events io.Writer) error {
	var req FetchRequest
	if err := json.NewDecoder(os.Stdin).Decode(&req); err != nil {
		return err
	}
	files := map[string]string{
		"rootfs.sqfs": "no squashfs",
		"image.json":  fmt.Sprintf(`{"digest":%q,"os":"linux","architecture":"amd64","config":{}}`, req.Digest),
		"record.json": "{}",
	}
	if misdeed == "otherdigest" {
		files["image.json"] = strings.Replace(files["image.json"], "sha256:", "sha256:0000", 1)
	}
	for name, content := range files {
		if err := os.WriteFile(name, []byte(content), 0o666); err != nil {
			return err
		}
	}
	if err := swapRootfs(misdeed); err != nil {
		return err
	}
	fmt.Fprintln(events, `{"done":true}`)
	if misdeed == "stays" {
		select {}
	}
	return nil
}

func swapRootfs(misdeed string) error {
	const rootfs = "rootfs.sqfs"
	switch misdeed {
	case "hardlink":
		return os.Link(rootfs, "second")
	case "symlink":
		return errors.Join(os.Remove(rootfs), os.Symlink("/etc/passwd", rootfs))
	case "missing":
		return os.Remove(rootfs)
	case "fifo":
		return errors.Join(os.Remove(rootfs), exec.Command("mkfifo", rootfs).Run())
	case "heir":
		// Goes on writing when its parent has ended. In the work folder: after
		// publishing, the file has moved.
		return exec.Command("sh", "-c", `exec 3>&-; setsid sh -c 'while :; do echo more >> rootfs.sqfs; done' & sleep 0.2`).Start()
	}
	return nil
}

// describe fails with what the fetcher sees of its surroundings.
func describe() error {
	groups, err := os.Getgroups()
	dir, err2 := os.Getwd()
	events := json.NewEncoder(os.NewFile(3, "events"))
	text := fmt.Sprintf("uid=%d gid=%d groups=%v pid=%d dir=%s env=%q files=%q %v", os.Getuid(), os.Getgid(), groups,
		os.Getpid(), filepath.Base(dir), os.Environ(), openFiles(), errors.Join(err, err2))
	return events.Encode(map[string]any{"failure": map[string]string{"text": text, "blame": "user"}})
}

// openFiles lists what is open beyond the descriptors of the protocol, but for
// what Go's runtime opens for itself.
func openFiles() []string {
	names, _ := filepath.Glob("/proc/self/fd/*")
	var open []string
	for _, name := range names {
		target, err := os.Readlink(name)
		n, _ := strconv.Atoi(filepath.Base(name))
		own := n <= 3 || strings.HasPrefix(target, "anon_inode:") || strings.HasPrefix(target, "/sys/fs/cgroup/")
		if err == nil && !own {
			open = append(open, target)
		}
	}
	return open
}

const someDigest = "sha256:1111111111111111111111111111111111111111111111111111111111111111"

func TestFetcherMisbehaves(t *testing.T) {
	if !privateMounts(t) {
		return
	}
	n := newNode(t)
	for i, tt := range []struct {
		misdeed, want string
		blame         fault.Blame
	}{
		{"silent", "without an answer", fault.Bug},
		{"garbage", "read the fetcher's answer", fault.Bug},
		{"endless", "token too long", fault.Bug},
		{"escape", "a [31mb c", fault.User},
		{"otherdigest", "not a digest", fault.Bug},
		{"hardlink", "has 2 names", fault.Bug},
		{"symlink", "too many levels of symbolic links", fault.Bug},
		{"fifo", "not a regular file", fault.Bug},
		{"missing", "no such file", fault.Bug},
	} {
		t.Run(tt.misdeed, func(t *testing.T) {
			n.configure(func(c *testConfig) { c.Misdeed = tt.misdeed })
			r := request(uint32(i+1), "x.example/y:v1", someDigest)
			n.prepare(r)
			_, err := n.outcome(r)
			if err == nil || !strings.Contains(err.Error(), tt.want) || fault.Of(err) != tt.blame {
				t.Errorf("outcome: %v, blame %v; want %q, blame %v", err, fault.Of(err), tt.want, tt.blame)
			}
			if p := n.published(); len(p) != 0 {
				t.Fatalf("published: %q", p)
			}
			n.cleanup(r.Job)
			n.checkClean()
		})
	}
}

// A child of the fetcher that would go on writing is dead before root looks;
// what it wrote is no image, so that nothing gets mounted either.
func TestFetcherLeavesAProcess(t *testing.T) {
	if !privateMounts(t) {
		return
	}
	for _, misdeed := range []string{"heir", "stays"} {
		t.Run(misdeed, func(t *testing.T) {
			n := newNode(t)
			n.configure(func(c *testConfig) { c.Misdeed, c.PrepareDeadline = misdeed, 5*time.Second })
			r := request(1, "x.example/y:v1", someDigest)
			n.prepare(r)
			if _, err := n.outcome(r); err == nil {
				t.Error("mounted what is no image")
			}
			for _, pid := range n.ofAccount() {
				t.Errorf("process %d of the account is left", pid)
				_ = unix.Kill(pid, unix.SIGKILL)
			}
			n.cleanup(1)
			n.checkClean()
		})
	}
}

// ofAccount lists the processes that run as the account.
func (n *node) ofAccount() []int {
	uid, _, err := n.cfg.account()
	must(n.t, err)
	files, _ := filepath.Glob("/proc/[0-9]*/status")
	var found []int
	for _, f := range files {
		data, _ := os.ReadFile(f) // it may end while we look
		if strings.Contains(string(data), fmt.Sprintf("\nUid:\t%d\t", uid)) {
			pid, err := strconv.Atoi(filepath.Base(filepath.Dir(f)))
			must(n.t, err)
			found = append(found, pid)
		}
	}
	return found
}

// The log of a fetcher can't fill the run folder.
func TestFetcherLogIsBounded(t *testing.T) {
	if !privateMounts(t) {
		return
	}
	n := newNode(t)
	n.configure(func(c *testConfig) { c.Misdeed = "chatty" })
	r := request(1, "x.example/y:v1", someDigest)
	n.prepare(r)
	_, _ = n.outcome(r)
	info, err := os.Stat(n.folder(r).LogPath())
	must(t, err)
	if info.Size() < maxStderr || info.Size() > maxStderr+64<<10 {
		t.Errorf("the log has %d bytes", info.Size())
	}
}

// What the account's process gets: its ids, no groups, the first number in a
// pid namespace, a fixed environment, nothing of ours open.
func TestFetcherSurroundings(t *testing.T) {
	if !privateMounts(t) {
		return
	}
	t.Setenv("LD_PRELOAD_OF_A_JOB", "x")
	leak, err := unix.Open("/etc/passwd", unix.O_RDONLY, 0) // as a scheduler's daemon may
	must(t, err)
	defer unix.Close(leak)
	n := newNode(t)
	n.configure(func(c *testConfig) { c.Misdeed = "describe" })
	r := request(1, "x.example/y:v1", someDigest)
	n.prepare(r)
	_, err = n.outcome(r)
	want := `uid=64123 gid=64124 groups=[] pid=1 `
	if err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("got %v, want %s", err, want)
	}
	if !strings.Contains(err.Error(), `env=["PATH=/usr/sbin:/usr/bin:/sbin:/bin" "LANG=C"] files=[]`) {
		t.Errorf("environment: %v", err)
	}
}

func TestAccount(t *testing.T) {
	for _, name := range []string{"root", "0:0", "0:5", "5:0", "1:2:3", "-1:5", "4294967296:1", "no-such-account-here", ""} {
		if uid, gid, err := (Config{Account: name}).account(); err == nil {
			t.Errorf("account %q is accepted as %d:%d", name, uid, gid)
		}
	}
	if uid, gid, err := (Config{Account: account}).account(); err != nil || uid != 64123 || gid != 64124 {
		t.Errorf("%d:%d, %v", uid, gid, err)
	}
}
