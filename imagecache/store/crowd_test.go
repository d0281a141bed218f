package store

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/berth-hpc/berth/fault"
)

// clusterEnv makes TestClusterNode a node of its own, with a part to play.
const clusterEnv = "BERTH_TEST_CLUSTER_NODE"

// A part is what a process does as a node of a cluster: it calls Ensure.
type part struct {
	Root, Host string
	Stale      time.Duration
	Work       time.Duration // how long filling takes
	KillAt     string        // the step of filling at which the process kills itself
	StopAt     string        // or stops itself until it gets SIGCONT
	Fail       string        // filling fails: "user", "site", "unusable", "personal"
	Reader     bool
	NoFlock    bool // flock(2) fails with ENOSYS
}

// TestClusterNode is not a test, but a node in the others.
func TestClusterNode(t *testing.T) {
	text := os.Getenv(clusterEnv)
	if text == "" {
		t.Skip("a part of other tests")
	}
	var p part
	if err := json.Unmarshal([]byte(text), &p); err != nil {
		t.Fatal(err)
	}
	if p.NoFlock {
		forbidFlock(t)
	}
	if err := p.play(testContext(t)); err != nil {
		fmt.Printf("failed: %s\n", err)
		return
	}
	fmt.Println("has it")
}

func (p part) options() ClusterOptions {
	return ClusterOptions{Host: p.Host, Writer: !p.Reader, Stale: p.Stale, Lease: time.Hour, Patience: 10 * time.Second}
}

func (p part) play(ctx context.Context) error {
	c, err := OpenCluster(ctx, p.Root, p.options())
	if err != nil {
		return err
	}
	c.step = p.at
	src, err := c.Ensure(ctx, digest('a'), func(host, line string) {}, p.filling(c))
	if err != nil {
		return err
	}
	defer src.Close()
	return src.Verify(ctx)
}

func (p part) filling(c *Cluster) func(context.Context, *Lock) error {
	return func(ctx context.Context, l *Lock) error { return p.fill(ctx, c, l) }
}

// at ends or stops the process if its part says so.
func (p part) at(step string) {
	switch step {
	case p.KillAt:
		_ = unix.Kill(os.Getpid(), unix.SIGKILL)
		select {}
	case p.StopAt:
		_ = unix.Kill(os.Getpid(), unix.SIGSTOP)
	}
}

func (p part) fill(ctx context.Context, c *Cluster, l *Lock) error {
	if err := note(p.Root+".fills", p.Host); err != nil {
		return err
	}
	p.at("locked")
	l.SetProgress("layer 1 of 1")
	if err := sleep(ctx, p.Work); err != nil {
		return err
	}
	switch p.Fail {
	case "user":
		return &fault.Error{Op: "pull", Blame: fault.User, Err: errors.New("no such image")}
	case "personal":
		return &PersonalError{&fault.Error{Op: "pull", Blame: fault.User, Err: errors.New("you may not")}}
	case "site":
		return &fault.Error{Op: "pull", Blame: fault.Site, Err: errors.New("registry down")}
	case "unusable":
		return fmt.Errorf("%w: disk full", ErrUnusable)
	}
	return publishLocked(c.Store, l, digest('a'), p.at)
}

// note adds a line to a file that many processes write.
func note(path, line string) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	_, err = f.WriteString(line + "\n")
	return errors.Join(err, f.Close())
}

const contents = "squashfs"

func publishLocked(s *Store, l *Lock, d Digest, at func(string)) error {
	dir, err := l.TempDir(os.Geteuid(), os.Getegid())
	if err != nil {
		return err
	}
	at("made work folder")
	sum := sha256.Sum256([]byte(contents))
	err = errors.Join(
		os.WriteFile(filepath.Join(dir, RootfsName), []byte(contents), 0o600),
		WriteJSON(filepath.Join(dir, ConfigName), 0o600, Manifest{Digest: d, OS: "linux", Config: Config{Env: []string{"A=B"}}}),
		WriteJSON(filepath.Join(dir, RecordName), 0o600, Record{
			Digest: d, References: []string{"r"}, Squashed: int64(len(contents)), SHA256: hex.EncodeToString(sum[:]),
		}))
	if err != nil {
		return err
	}
	at("wrote")
	work, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer work.Close()
	if _, err := s.Publish(Work{Folder: work, Stager: os.Geteuid()}, d); err != nil {
		return err
	}
	at("published")
	return nil
}

// A crowd is a folder that many nodes share.
type crowd struct {
	t    *testing.T
	root string
}

func newCrowd(t *testing.T) *crowd {
	t.Helper()
	dir := t.TempDir()
	c := &crowd{t: t, root: filepath.Join(dir, "cluster")}
	if err := errors.Join(os.Chmod(dir, 0o755), os.Mkdir(c.root, 0o755)); err != nil {
		t.Fatal(err)
	}
	return c
}

// start has a process play p.
func (c *crowd) start(p part) *exec.Cmd {
	c.t.Helper()
	p.Root = c.root
	if p.Stale == 0 {
		p.Stale = 600 * time.Millisecond
	}
	text, err := json.Marshal(p)
	if err != nil {
		c.t.Fatal(err)
	}
	cmd := exec.CommandContext(testContext(c.t), "/proc/self/exe", "-test.run=^TestClusterNode$")
	cmd.Env = append(os.Environ(), clusterEnv+"="+string(text))
	cmd.Stdout, cmd.Stderr = &bytes.Buffer{}, os.Stderr
	if err := cmd.Start(); err != nil {
		c.t.Fatal(err)
	}
	return cmd
}

// end returns what the process printed.
func (c *crowd) end(cmd *exec.Cmd) string {
	_ = cmd.Wait()
	return cmd.Stdout.(*bytes.Buffer).String()
}

// node is the crowd's store as this process sees it.
func (c *crowd) node(change func(*ClusterOptions)) *Cluster {
	c.t.Helper()
	o := part{Host: "here", Stale: time.Second}.options()
	if change != nil {
		change(&o)
	}
	s, err := OpenCluster(testContext(c.t), c.root, o)
	if err != nil {
		c.t.Fatal(err)
	}
	return s
}

// fills lists who filled.
func (c *crowd) fills() []string {
	data, _ := os.ReadFile(c.root + ".fills")
	return strings.Fields(string(data))
}

// publish puts an image into the store.
func (c *crowd) publish(d Digest) *Cluster {
	c.t.Helper()
	s := c.node(nil)
	src, err := s.Ensure(testContext(c.t), d, func(string, string) {}, func(_ context.Context, l *Lock) error {
		return publishLocked(s.Store, l, d, func(string) {})
	})
	if err != nil {
		c.t.Fatal(err)
	}
	src.Close()
	return s
}

// checkWhole wants a complete image and nothing else.
func (c *crowd) checkWhole() {
	c.t.Helper()
	s := c.node(nil)
	src, err := s.Open(testContext(c.t), digest('a'))
	if err != nil {
		c.t.Fatal(err)
	}
	defer src.Close()
	if err := src.Verify(testContext(c.t)); err != nil {
		c.t.Error(err)
	}
	checkEmpty(c.t, s.Store)
	if left, err := os.ReadDir(s.locksDir()); err != nil || len(left) > 0 {
		c.t.Errorf("left in locks: %v, %v", left, err)
	}
}
