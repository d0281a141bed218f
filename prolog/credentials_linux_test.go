package prolog

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/berth-hpc/berth/imagecache"
	"github.com/berth-hpc/berth/imagecache/credentials"
)

// The job's user of these tests, and a group that is theirs.
const (
	jobUID, jobGID, teamGID = 64125, 64126, 64127
	jobPassword             = "j0b-s3cret"
)

const authJSON = `{"auths": {"quay.io": {"username": "alice", "password": "` + jobPassword + `"}}}`

// A userHome is a home folder below a node's folder.
type userHome struct {
	t   *testing.T
	dir string
}

func (n *node) home(name string) userHome {
	h := userHome{n.t, filepath.Join(n.dir, name)}
	h.write(".config/containers/auth.json", authJSON)
	h.own()
	return h
}

func (h userHome) write(name, text string) {
	h.t.Helper()
	path := filepath.Join(h.dir, name)
	must(h.t, os.MkdirAll(filepath.Dir(path), 0o700))
	must(h.t, os.WriteFile(path, []byte(text), 0o600))
	h.own()
}

func (h userHome) own() {
	h.t.Helper()
	if out, err := exec.Command("chown", "-hR", fmt.Sprintf("%d:%d", jobUID, jobGID), h.dir).CombinedOutput(); err != nil {
		h.t.Fatalf("%v: %s", err, out)
	}
}

func userOf(home string) looker {
	return looker{uid: jobUID, gid: jobGID, groups: []uint32{teamGID}, home: home}
}

func quay(t *testing.T) imagecache.Reference {
	t.Helper()
	ref, err := imagecache.ParseReference("quay.io/team/tool:1")
	must(t, err)
	return ref
}

// A user's login is found in all kinds of homes, and nothing but said where
// there is none.
func TestLookUp(t *testing.T) {
	if !privateMounts(t) {
		return
	}
	n := newNode(t)
	auth := ".config/containers/auth.json"
	for _, tt := range []struct {
		name string
		home func(h userHome) string
		want string // the login's name
		err  string
	}{
		{"in the home folder", func(h userHome) string { return h.dir }, "alice", ""},
		{"through a link", func(h userHome) string {
			must(h.t, os.Symlink(h.dir, h.dir+".link"))
			return h.dir + ".link"
		}, "alice", ""},
		{"docker's", func(h userHome) string {
			must(h.t, os.Remove(filepath.Join(h.dir, auth)))
			h.write(".docker/config.json", authJSON)
			return h.dir
		}, "alice", ""},
		{"by a group", func(h userHome) string {
			path := filepath.Join(h.dir, auth)
			must(h.t, os.Chown(path, 0, teamGID))
			must(h.t, os.Chmod(path, 0o640))
			return h.dir
		}, "alice", ""},
		{"no login", func(h userHome) string { h.write(auth, "{}"); return h.dir }, "", ""},
		{"no home folder", func(h userHome) string { return h.dir + "/missing" }, "", ""},
		{"no home at all", func(userHome) string { return "" }, "", ""},
		{"a relative home", func(userHome) string { return "." }, "", ""},
		// As root sees it, everything would be readable; over NFS with
		// root_squash, nothing would. It is the user who looks.
		{"another's home", func(h userHome) string {
			must(h.t, os.Chown(h.dir, jobUID+9, jobGID+9))
			return h.dir
		}, "", "permission denied"},
		{"another's file", func(h userHome) string { must(h.t, os.Chown(filepath.Join(h.dir, auth), 0, 0)); return h.dir }, "", "permission denied"},
		{"a fifo", func(h userHome) string {
			path := filepath.Join(h.dir, auth)
			must(h.t, os.Remove(path))
			must(h.t, unix.Mkfifo(path, 0o666))
			return h.dir
		}, "", "not a regular file"},
		{"broken", func(h userHome) string { h.write(auth, "{"+jobPassword); return h.dir }, "", "line 1 is not valid JSON"},
		{"in a helper", func(h userHome) string {
			must(h.t, os.Remove(filepath.Join(h.dir, auth)))
			h.write(".docker/config.json", `{"credsStore": "x"}`)
			return h.dir
		}, "", "helper programs run only in commands that you run yourself"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			h := n.home(strings.ReplaceAll(tt.name, " ", "-"))
			h.t = t
			l, err := n.cfg.lookUp(t.Context(), userOf(tt.home(h)), quay(t))
			if l.Name() != tt.want || (tt.want == "alice") != (l.Password().Reveal() == jobPassword) {
				t.Errorf("got %v", l)
			}
			if (err == nil) != (tt.err == "") || err != nil && (!strings.Contains(err.Error(), tt.err) || strings.Contains(err.Error(), jobPassword)) {
				t.Errorf("error %v, want %q", err, tt.err)
			}
		})
	}
}

func TestLookUpIsForUsers(t *testing.T) {
	if !privateMounts(t) {
		return
	}
	n := newNode(t)
	n.configure(func(c *testConfig) { c.Misdeed = "describe" }) // would fail
	h := n.home("root")
	if l, err := n.cfg.lookUp(t.Context(), looker{home: h.dir}, quay(t)); !l.IsZero() || err != nil {
		t.Errorf("root's own: %v, %v", l, err)
	}
	file, err := imagecache.ParseReference("oci:folder")
	must(t, err)
	if l, err := n.cfg.lookUp(t.Context(), userOf(h.dir), file); !l.IsZero() || err != nil {
		t.Errorf("an image in a file: %v, %v", l, err)
	}
}

// What the user's process is and has: the user's ids, the first number of a
// pid namespace, no network, a fixed environment, no core dumps, nothing open.
func TestLookUpSurroundings(t *testing.T) {
	if !privateMounts(t) {
		return
	}
	t.Setenv("LD_PRELOAD_OF_A_JOB", "x")
	leak, err := unix.Open("/etc/passwd", unix.O_RDONLY, 0)
	must(t, err)
	defer unix.Close(leak)
	n := newNode(t)
	n.configure(func(c *testConfig) { c.Misdeed = "describe" })
	_, err = n.cfg.lookUp(t.Context(), userOf("/"), quay(t))
	for _, want := range []string{
		fmt.Sprintf("uid=%d gid=%d groups=[%d] pid=1 dir=/ ", jobUID, jobGID, teamGID),
		`env=["PATH=/usr/sbin:/usr/bin:/sbin:/bin" "LANG=C"] files=[]`,
		"interfaces=lo core=0 dumpable=0",
	} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %s", err, want)
		}
	}
}

// lookAsUser is the user's process, which may have been taken over.
func lookAsUser(ctx context.Context, misdeed string) error {
	answer := os.NewFile(3, "answer")
	switch misdeed {
	case "":
		return AnswerLogin(ctx, os.Stdin, answer)
	case "describe":
		if err := credentials.Guard(); err != nil {
			return err
		}
		return describeUser()
	case "hangs":
		select {}
	}
	return misbehave(misdeed, answer, nil)
}

// describeUser is `node credentials` that tells of its surroundings.
func describeUser() error {
	var core unix.Rlimit
	err := unix.Getrlimit(unix.RLIMIT_CORE, &core)
	dumpable, err2 := unix.PrctlRetInt(unix.PR_GET_DUMPABLE, 0, 0, 0, 0)
	devices, err3 := os.ReadFile("/proc/self/net/dev")
	var names []string
	for line := range strings.Lines(string(devices)) {
		if name, _, ok := strings.Cut(strings.TrimSpace(line), ":"); ok {
			names = append(names, name)
		}
	}
	groups, err4 := os.Getgroups()
	dir, err5 := os.Getwd()
	text := fmt.Sprintf("uid=%d gid=%d groups=%v pid=%d dir=%s env=%q files=%q interfaces=%s core=%d dumpable=%d %v", os.Getuid(), os.Getgid(), groups,
		os.Getpid(), dir, os.Environ(), openFiles(), strings.Join(names, ","), core.Max, dumpable, []error{err, err2, err3, err4, err5})
	return json.NewEncoder(os.NewFile(3, "answer")).Encode(map[string]any{"failure": map[string]string{"text": text, "blame": "user"}})
}

// A process that was taken over by its user says what it likes; root takes it
// for data, and not for long.
func TestLookUpMisbehaves(t *testing.T) {
	if !privateMounts(t) {
		return
	}
	n := newNode(t)
	for _, tt := range []struct{ misdeed, want string }{
		{"silent", "ended without an answer"},
		{"garbage", "took more than 1s"},
		{"endless", "longer than 65536 bytes"},
		{"escape", "a [31mb c"},
		{"hangs", "took more than 1s"},
	} {
		t.Run(tt.misdeed, func(t *testing.T) {
			n.configure(func(c *testConfig) { c.Misdeed = tt.misdeed })
			start := time.Now()
			l, err := n.cfg.lookWithin(t.Context(), time.Second, userOf("/"), LoginRequest{Registry: "quay.io", Home: "/home/alice"})
			if !l.IsZero() || err == nil || !strings.Contains(err.Error(), tt.want) || strings.Contains(err.Error(), "\x1b") {
				t.Errorf("got %v, %v", l, err)
			}
			if took := time.Since(start); took > 4*time.Second {
				t.Errorf("took %v", took)
			}
			eventually(t, "no process is left", func() bool { return len(n.processes()) == 0 })
		})
	}
}

// With the worker its look for a login ends.
func TestLookUpEndsWithWorker(t *testing.T) {
	if !privateMounts(t) {
		return
	}
	n := newNode(t)
	n.configure(func(c *testConfig) { c.Misdeed = "hangs" })
	args := n.cfg.command("node", "look")
	worker := exec.CommandContext(t.Context(), args[0], args[1:]...)
	must(t, worker.Start())
	eventually(t, "the look begins", func() bool { return len(n.looks()) == 1 })
	must(t, worker.Process.Kill())
	_ = worker.Wait()
	eventually(t, "it ends", func() bool { return len(n.processes()) == 0 })
}

// looks are the node's processes that look for logins.
func (n *node) looks() (pids []string) {
	files, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, f := range files {
		data, _ := os.ReadFile(f) // it may end while we look
		if strings.HasPrefix(string(data), filepath.Join(n.dir, "berth")+"\x00") && strings.HasSuffix(string(data), "credentials\x00") {
			pids = append(pids, filepath.Base(filepath.Dir(f)))
		}
	}
	return pids
}

// The process that looks is closed to the user's others, before it reads.
func TestLookUpIsGuarded(t *testing.T) {
	if !privateMounts(t) {
		return
	}
	n := newNode(t)
	home := filepath.Join(n.dir, "home")
	must(t, os.Mkdir(home, 0o755))
	server := mountDeadFUSE(t, home)
	defer server.end(t, home)
	done := make(chan error, 1)
	go func() {
		_, err := n.cfg.lookWithin(t.Context(), 10*time.Second, userOf(home), LoginRequest{Registry: "quay.io", Home: home})
		done <- err
	}()
	eventually(t, "a process that only root may look into", func() bool {
		pids := n.looks()
		return len(pids) == 1 && isGuarded("/proc/"+pids[0])
	})
	for _, pid := range n.looks() {
		number, err := strconv.Atoi(pid)
		must(t, err)
		must(t, unix.Kill(number, unix.SIGKILL))
	}
	if err := <-done; err == nil {
		t.Error("it was killed, and answered")
	}
}

// isGuarded: the files of an undumpable process belong to root.
func isGuarded(proc string) bool {
	var st unix.Stat_t
	limits, err := os.ReadFile(proc + "/limits")
	return err == nil && unix.Stat(proc+"/environ", &st) == nil && st.Uid == 0 &&
		strings.Contains(string(limits), "Max core file size        0                    0 ")
}

// A home folder on a file server that is gone: its process is killed in time.
// Where the server took the request and never answers, the kernel lets nobody
// kill it; then root goes on without it.
func TestLookUpOnDeadServer(t *testing.T) {
	if !privateMounts(t) {
		return
	}
	n := newNode(t)
	for _, tt := range []struct {
		name, want string
		answers    bool // it answers the first question, so that more come
	}{
		{"never answers", "took more than 1s", false},
		{"takes requests and never answers", "hangs in the kernel", true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			home := filepath.Join(n.dir, strings.ReplaceAll(tt.name, " ", "-"))
			must(t, os.Mkdir(home, 0o755))
			server := mountDeadFUSE(t, home)
			if tt.answers {
				server.begin(t)
			}
			start := time.Now()
			l, err := n.cfg.lookWithin(t.Context(), time.Second, userOf(home), LoginRequest{Registry: "quay.io", Home: home})
			if !l.IsZero() || err == nil || !strings.Contains(err.Error(), tt.want) || !strings.Contains(err.Error(), home) {
				t.Errorf("got %v, %v", l, err)
			}
			if took := time.Since(start); took > 4*time.Second {
				t.Errorf("took %v", took)
			}
			server.end(t, home)
			eventually(t, "no process is left", func() bool { return len(n.processes()) == 0 })
		})
	}
}

// deadFUSE is a FUSE server that does not serve.
type deadFUSE struct{ dev int }

func mountDeadFUSE(t *testing.T, dir string) deadFUSE {
	t.Helper()
	dev, err := unix.Open("/dev/fuse", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Skipf("needs /dev/fuse: %v", err)
	}
	options := fmt.Sprintf("fd=%d,rootmode=40000,user_id=0,group_id=0,allow_other", dev)
	must(t, unix.Mount("dead", dir, "fuse", unix.MS_NOSUID|unix.MS_NODEV, options))
	return deadFUSE{dev}
}

// begin answers FUSE_INIT, and takes one further request.
func (f deadFUSE) begin(t *testing.T) {
	t.Helper()
	request := make([]byte, 1<<20)
	n, err := unix.Read(f.dev, request)
	must(t, err)
	if n < 16 || binary.NativeEndian.Uint32(request[4:]) != 26 {
		t.Fatalf("the first request is no FUSE_INIT: %d bytes", n)
	}
	reply := make([]byte, 16+64)
	binary.NativeEndian.PutUint32(reply, uint32(len(reply)))
	copy(reply[8:], request[8:16])                      // unique
	binary.NativeEndian.PutUint32(reply[16:], 7)        // major
	binary.NativeEndian.PutUint32(reply[20:], 31)       // minor
	binary.NativeEndian.PutUint32(reply[16+20:], 1<<16) // max_write
	_, err = unix.Write(f.dev, reply)
	must(t, err)
	go func() { _, _ = unix.Read(f.dev, request) }()
}

func (f deadFUSE) end(t *testing.T, dir string) {
	t.Helper()
	must(t, unix.Unmount(dir, unix.MNT_DETACH|unix.MNT_FORCE))
	must(t, unix.Close(f.dev))
}
