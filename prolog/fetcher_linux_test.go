package prolog

import (
	"encoding/binary"
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
	"github.com/berth-hpc/berth/imagecache/squashfs"
	"github.com/berth-hpc/berth/prolog/sandbox"
)

// misbehave is a fetcher that has been taken over. It runs as the account, in
// its work folder, with root listening on events.
func misbehave(misdeed string, events io.Writer, converter io.Reader) error {
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
	return claim(misdeed, events, converter)
}

// claim says that all is well, once the converter has done its misdeed.
func claim(misdeed string, events io.Writer, converter io.Reader) error {
	var req FetchRequest
	if err := json.NewDecoder(os.Stdin).Decode(&req); err != nil {
		return err
	}
	files := map[string]string{
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
	if _, err := converter.Read(make([]byte, 1)); err != nil {
		return err
	}
	fmt.Fprintln(events, `{"done":true}`)
	if misdeed == "stays" {
		select {}
	}
	return nil
}

// convertBadly is a converter that has been taken over: it is shut in, with
// programs at hand.
func convertBadly(cfg testConfig, work string) error {
	uid, gid, err := cfg.account()
	if err != nil {
		return err
	}
	if err := sandbox.Enter(sandbox.Cell{UID: uid, GID: gid, Base: cfg.RunDir, Work: work, Programs: true}); err != nil {
		return err
	}
	if err := os.Chdir(sandbox.WorkDir); err != nil {
		return err
	}
	if err := os.WriteFile("rootfs.sqfs", hostileImage(cfg.Misdeed), 0o666); err != nil {
		return err
	}
	if err := swapRootfs(cfg.Misdeed); err != nil {
		return err
	}
	if _, err := os.NewFile(3, "fetcher").Write([]byte("x")); err != nil {
		return err
	}
	if cfg.Misdeed == "converter fails" {
		return errors.New("on purpose")
	}
	return nil
}

// hostileImage is a squashfs file. One that is good but for a link count, in an
// inode that the kernel would believe, comes where the misdeed asks for it.
func hostileImage(misdeed string) []byte {
	if misdeed == "no image" {
		return []byte("no squashfs")
	}
	var out memoryFile
	w, err := squashfs.NewWriter(&out, squashfs.Options{Workers: 1})
	if err != nil {
		panic(err)
	}
	defer w.Close()
	root := &squashfs.Inode{Kind: squashfs.Dir, Mode: 0o755}
	if _, err := w.Finish(root); err != nil {
		panic(err)
	}
	if misdeed == "hostile" {
		binary.LittleEndian.PutUint64(out.data[32:], 1<<40) // the root's place, beyond the table
	}
	return out.data
}

// memoryFile is a squashfs.Output.
type memoryFile struct{ data []byte }

func (m *memoryFile) Write(p []byte) (int, error) {
	m.data = append(m.data, p...)
	return len(p), nil
}

func (m *memoryFile) WriteAt(p []byte, at int64) (int, error) {
	return copy(m.data[at:], p), nil
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
		return errors.Join(os.Remove(rootfs), unix.Mkfifo(rootfs, 0o600))
	case "folder":
		return errors.Join(os.Remove(rootfs), os.Mkdir(rootfs, 0o700))
	case "heir":
		// Goes on writing when its parent has ended. In the work folder: after
		// publishing, the file has moved.
		return exec.Command("/bin/sh", "-c", `exec 3>&-; (trap '' HUP; while :; do echo more >> rootfs.sqfs; done) & sleep 0.2`).Start()
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
		own := n <= 4 || strings.HasPrefix(target, "anon_inode:") || strings.HasPrefix(target, "/sys/fs/cgroup/")
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
		{"folder", "not a regular file", fault.Bug},
		{"no image", "squashfs structure", fault.Bug},
		{"hostile", "squashfs structure", fault.Bug},
		{"silent checker", "the checker gave no answer", fault.Bug},
		{"converter fails", "the converter: exit status 1", fault.Bug},
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

// A child of the converter that would go on writing is dead before root looks,
// also if the image is good; so is all that is left when the fetcher does not
// end.
func TestFetcherLeavesAProcess(t *testing.T) {
	if !privateMounts(t) {
		return
	}
	for misdeed, good := range map[string]bool{"heir": true, "stays": false} {
		t.Run(misdeed, func(t *testing.T) {
			n := newNode(t)
			n.configure(func(c *testConfig) { c.Misdeed, c.PrepareDeadline = misdeed, 5*time.Second })
			r := request(1, "x.example/y:v1", someDigest)
			n.prepare(r)
			if _, err := n.outcome(r); (err == nil) != good {
				t.Errorf("outcome: %v", err)
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

// The converter can't write more than the site allows.
func TestImageIsTooLarge(t *testing.T) {
	if !privateMounts(t) {
		return
	}
	n, reg := newNode(t), newRegistry(t)
	n.configure(func(c *testConfig) { c.MaxImage = 100 })
	image, digest := reg.push(t, "a/b:v1", strings.Repeat("x", 4096))
	r := request(1, image, digest)
	n.prepare(r)
	_, err := n.outcome(r)
	if err == nil || !strings.Contains(err.Error(), "file too large") || !strings.Contains(fault.Remedy(err), "store.max_image") {
		t.Errorf("outcome: %v, remedy %q", err, fault.Remedy(err))
	}
	n.cleanup(1)
	n.checkClean()
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
