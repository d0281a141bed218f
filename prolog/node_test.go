package prolog

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/crane"
	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/sirupsen/logrus"
	"golang.org/x/sys/unix"

	"github.com/berth-hpc/berth/imagecache"
	"github.com/berth-hpc/berth/launcher"
	"github.com/berth-hpc/berth/launcher/wire"
	"github.com/berth-hpc/berth/prolog/jobstate"
)

const inPrivateMounts = "BERTH_TEST_PRIVATE_MOUNTS"

// account and checker are nobody's: the tests need no account on the machine.
const (
	account = "64123:64124"
	checker = "64127:64128"
)

// TestMain makes the test binary stand in for `berth`: a node's programs start
// it as `BINARY --node=FILE node worker|fetch …` and `… gc`.
func TestMain(m *testing.M) {
	if len(os.Args) > 2 && strings.HasPrefix(os.Args[1], "--node=") {
		if err := berth(strings.TrimPrefix(os.Args[1], "--node="), os.Args[2:]); err != nil {
			log.Fatal(err)
		}
		return
	}
	os.Exit(m.Run())
}

// testConfig is the file that the stand-in reads.
type testConfig struct {
	Config
	Misdeed string // what the fetcher does instead of its work
	Homes   map[uint32]string
	Mirrors map[string]testMirror // by the registry's host
}

// testMirror is what the site has set for a mirror.
type testMirror struct {
	Host  string
	Takes bool
}

// network is how the fetcher reaches registries.
func (c testConfig) network() imagecache.Network {
	hosts := map[string]imagecache.Host{}
	for registry, m := range c.Mirrors {
		hosts[registry] = imagecache.Host{Mirrors: []string{m.Host}}
		hosts[m.Host] = imagecache.Host{TakesLogins: m.Takes}
	}
	return imagecache.Network{Hosts: hosts}
}

// user is what the user database of the tests says.
func (c testConfig) user(uid uint32) (looker, error) {
	home, ok := c.Homes[uid]
	if !ok {
		return looker{}, errors.New("no such user")
	}
	return looker{uid: uid, gid: uid, home: home}, nil
}

func berth(file string, args []string) error {
	var cfg testConfig
	data, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(data, &cfg); err != nil {
		return err
	}
	cfg.users = cfg.user
	ctx, stop := signal.NotifyContext(context.Background(), unix.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, stop) // a second signal ends the process at once, as with the real one
	if args[0] == "gc" {
		return collect(ctx, cfg.Config)
	}
	switch strings.Join(args[:2], " ") {
	case "node prepare":
		return Prepare(ctx, cfg.Config, os.Stdin)
	case "node worker":
		if len(args) > 3 && args[3] == "--login" {
			login := os.NewFile(4, "login")
			defer login.Close()
			return Work(ctx, logrus.New(), cfg.Config, args[2], login)
		}
		return Work(ctx, logrus.New(), cfg.Config, args[2], nil)
	case "node look":
		_, err := cfg.lookWithin(ctx, time.Minute, userOf("/"), LoginRequest{Registry: "quay.io", Home: "/"})
		return err
	case "node credentials":
		return lookAsUser(ctx, cfg.Misdeed)
	case "node reap":
		_, err := Reap(ctx, cfg.Config)
		return err
	case "node fetch":
		if cfg.Misdeed != "" {
			return misbehave(cfg.Misdeed, os.NewFile(3, "events"), os.NewFile(4, "converter"))
		}
		return Fetch(ctx, imagecache.FetchOptions{Network: cfg.network()}, os.Stdin, os.NewFile(3, "events"), os.NewFile(4, "converter"), ".")
	case "node convert":
		if cfg.Misdeed != "" {
			return convertBadly(cfg, args[2])
		}
		return Convert(ctx, cfg.Config, imagecache.Stream{}, os.NewFile(3, "fetcher"), args[2])
	case "node check":
		if cfg.Misdeed == "silent checker" {
			return nil
		}
		return Check(cfg.Config, os.NewFile(3, "image"), os.Stdout)
	}
	return fmt.Errorf("unknown command %q", args)
}

// privateMounts runs the test again as a process in a mount namespace of its
// own and reports whether it is that one.
func privateMounts(t *testing.T) bool {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("needs root: mounts images, starts processes as another user")
	}
	if _, err := exec.LookPath("mksquashfs"); err != nil {
		t.Skip("needs mksquashfs (package squashfs-tools)")
	}
	if os.Getenv(inPrivateMounts) != "" {
		return true
	}
	// Every wait in it has its own limit; this one is to show who hangs.
	cmd := exec.CommandContext(t.Context(), "unshare", "--mount", "--propagation=slave", os.Args[0], "-test.run=^"+t.Name()+"$", "-test.v", "-test.timeout=10m")
	cmd.Env = append(os.Environ(), inPrivateMounts+"=1")
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	t.Logf("%s", out)
	return false
}

// A node is a managed node: run folder, store, and `berth`.
type node struct {
	t    *testing.T
	dir  string
	file string
	cfg  testConfig
}

// newNode makes a node whose files the account can reach. At the end of the
// test it checks that nothing of it is left.
func newNode(t *testing.T) *node {
	t.Helper()
	dir, err := os.MkdirTemp("", "berth-node-")
	if err != nil {
		t.Fatal(err)
	}
	n := &node{t: t, dir: dir, file: filepath.Join(dir, "config.json")}
	t.Cleanup(n.end)
	must(t, os.Chmod(dir, 0o755))
	exe := filepath.Join(dir, "berth")
	if out, err := exec.Command("cp", os.Args[0], exe).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	must(t, os.Chmod(exe, 0o755))
	n.configure(func(c *testConfig) {
		c.Config = Config{
			RunDir: filepath.Join(dir, "run"), StoreDir: filepath.Join(dir, "store"), Account: account, Checker: checker,
			PrologWait: 30 * time.Second, PrepareDeadline: time.Minute,
			Command:  []string{exe, "--node=" + n.file},
			GrantTTL: time.Hour,
		}
	})
	return n
}

func (n *node) configure(change func(*testConfig)) {
	n.t.Helper()
	change(&n.cfg)
	data, err := json.Marshal(n.cfg)
	must(n.t, err)
	must(n.t, os.WriteFile(n.file, data, 0o644))
}

func (n *node) end() {
	jobs, _ := jobstate.Jobs(n.cfg.RunDir)
	for _, job := range jobs {
		n.cleanup(job)
	}
	eventually(n.t, "the processes of the node end", func() bool { return len(n.processes()) == 0 })
	eventually(n.t, "its loop devices go", func() bool { return n.loops() == 0 })
	_ = unix.Unmount(filepath.Join(n.cfg.RunDir, "private/mounts.ns"), unix.MNT_DETACH)
	_ = unix.Unmount(n.cfg.RunDir, unix.MNT_DETACH)
	must(n.t, os.RemoveAll(n.dir))
}

func (n *node) prepare(r jobstate.Request) {
	n.t.Helper()
	must(n.t, Prepare(n.t.Context(), n.cfg.Config, bytes.NewReader(message(n.t, r))))
}

func message(t *testing.T, r jobstate.Request) []byte {
	t.Helper()
	m, err := wire.Message{
		{Key: "job", Value: fmt.Sprint(r.Job)},
		{Key: "uid", Value: fmt.Sprint(r.UID)},
		{Key: "gid", Value: fmt.Sprint(r.GID)},
		{Key: "image", Value: r.Image},
		{Key: "digest", Value: r.Digest},
	}.Encode()
	must(t, err)
	return m
}

func (n *node) cleanup(job any) {
	n.t.Helper()
	m, err := wire.Message{{Key: "job", Value: fmt.Sprint(job)}}.Encode()
	must(n.t, err)
	must(n.t, Cleanup(context.Background(), n.cfg.Config, bytes.NewReader(m)))
}

// outcome waits for the end of a preparation.
func (n *node) outcome(r jobstate.Request) (jobstate.Ready, error) {
	n.t.Helper()
	ctx, cancel := context.WithTimeout(n.t.Context(), 30*time.Second)
	defer cancel()
	ready, err := n.folder(r).Wait(ctx, nil)
	if ctx.Err() != nil {
		n.t.Fatalf("no outcome of job %s: %v\n%s", r.Job, err, n.log(r))
	}
	return ready, err
}

func (n *node) ready(r jobstate.Request) jobstate.Ready {
	n.t.Helper()
	ready, err := n.outcome(r)
	if err != nil {
		n.t.Fatalf("job %s: %v\n%s", r.Job, err, n.log(r))
	}
	return ready
}

func (n *node) folder(r jobstate.Request) jobstate.Folder { return jobstate.Locate(n.cfg.RunDir, r) }

func (n *node) log(r jobstate.Request) string {
	data, _ := os.ReadFile(n.folder(r).LogPath())
	return string(data)
}

func (n *node) mounted() []string {
	n.t.Helper()
	m, err := launcher.OpenMounts(n.t.Context(), n.cfg.RunDir)
	must(n.t, err)
	defer m.Close()
	names, err := m.Images()
	must(n.t, err)
	return names
}

// processes are the node's workers and fetchers, by what they were started as.
func (n *node) processes() []string {
	files, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	var found []string
	for _, f := range files {
		data, _ := os.ReadFile(f) // it may end while we look
		if args := strings.Split(string(data), "\x00"); args[0] == filepath.Join(n.dir, "berth") {
			found = append(found, strings.Join(args, " "))
		}
	}
	return found
}

func (n *node) loops() int {
	files, _ := filepath.Glob("/sys/block/loop*/loop/backing_file")
	count := 0
	for _, f := range files {
		if data, _ := os.ReadFile(f); strings.HasPrefix(string(data), n.dir+"/") {
			count++
		}
	}
	return count
}

// storeTmp lists what conversions left in the store.
func (n *node) storeTmp() []string {
	a, _ := filepath.Glob(filepath.Join(n.cfg.StoreDir, "tmp", "*"))
	b, _ := filepath.Glob(filepath.Join(n.cfg.StoreDir, "images", ".new", "*"))
	return append(a, b...)
}

func (n *node) published() []string {
	names, _ := filepath.Glob(filepath.Join(n.cfg.StoreDir, "images", "sha256", "*"))
	return names
}

// A testRegistry is a real registry on a loopback port that counts and can
// stop answering.
type testRegistry struct {
	host               string
	requests, getBlobs atomic.Int64
	mu                 sync.Mutex
	hang, missing      func(*http.Request) bool
	release            chan struct{}
}

func newRegistry(t *testing.T, options ...registry.Option) *testRegistry {
	t.Helper()
	r := &testRegistry{release: make(chan struct{})}
	real := registry.New(append(options, registry.Logger(log.New(io.Discard, "", 0)))...)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		r.requests.Add(1)
		if isBlob(req) {
			r.getBlobs.Add(1)
		}
		r.waitWhileStalled(req)
		r.mu.Lock()
		missing := r.missing != nil && r.missing(req)
		r.mu.Unlock()
		if missing {
			http.NotFound(w, req)
			return
		}
		real.ServeHTTP(w, req)
	}))
	t.Cleanup(server.Close)
	t.Cleanup(func() { r.answer() })
	r.host = strings.TrimPrefix(server.URL, "http://")
	return r
}

func isBlob(r *http.Request) bool {
	return r.Method == http.MethodGet && strings.Contains(r.URL.Path, "/blobs/")
}

func isManifest(r *http.Request) bool { return strings.Contains(r.URL.Path, "/manifests/") }

// stall makes requests hang until answer is called.
func (r *testRegistry) stall(which func(*http.Request) bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.hang, r.release = which, make(chan struct{})
}

func (r *testRegistry) answer() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.hang != nil {
		close(r.release)
	}
	r.hang = nil
}

// push puts an image with one file into the registry.
func (r *testRegistry) push(t *testing.T, name, content string) (reference, digest string) {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	must(t, w.WriteHeader(&tar.Header{Name: "hello", Mode: 0o644, Size: int64(len(content))}))
	_, err := io.WriteString(w, content)
	must(t, err)
	must(t, w.Close())
	layer, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(b.Bytes())), nil })
	must(t, err)
	img, err := mutate.AppendLayers(empty.Image, layer)
	must(t, err)
	img, err = mutate.ConfigFile(img, configFile(t, img))
	must(t, err)
	d, err := img.Digest()
	must(t, err)
	reference = r.host + "/" + name
	must(t, crane.Push(img, reference, crane.Insecure))
	return reference, d.String()
}

func configFile(t *testing.T, img v1.Image) *v1.ConfigFile {
	t.Helper()
	c, err := img.ConfigFile()
	must(t, err)
	c = c.DeepCopy()
	c.OS, c.Architecture = "linux", "amd64"
	return c
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// eventually waits for what other processes and the kernel do.
func eventually(t *testing.T, what string, happened func() bool) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	deadline := time.After(20 * time.Second)
	for !happened() {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("waited in vain: %s", what)
		}
	}
}
