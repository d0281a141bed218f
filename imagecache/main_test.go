package imagecache

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/berth-hpc/berth/imagecache/store"
)

// nobodyID is an ordinary user without entries in any database.
const nobodyID = 59871

// helperEnv makes the test binary pull an image instead of running tests.
const helperEnv = "BERTH_TEST_PULL"

func TestMain(m *testing.M) {
	if ref := os.Getenv(helperEnv); ref != "" {
		if err := helperMain(ref); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// helperMain pulls ref into $BERTH_TEST_STORE and prints the image's folder, or
// squashes $BERTH_TEST_SQUASH, or converts $BERTH_TEST_ENTRIES files into the
// file that text names.
func helperMain(text string) error {
	ctx, cancel := context.WithTimeout(context.Background(), testTimeout)
	defer cancel()
	if os.Getenv("BERTH_TEST_UMASK") != "" {
		unix.Umask(0o077)
	}
	if tree := os.Getenv("BERTH_TEST_SQUASH"); tree != "" {
		return Umoci{Mksquashfs: os.Getenv("BERTH_TEST_PROGRAM")}.squash(ctx, tree, filepath.Join(tree, "out.sqfs"), nil)
	}
	if n, _ := strconv.Atoi(os.Getenv("BERTH_TEST_ENTRIES")); n > 0 {
		return Stream{}.Convert(ctx, oneLayer{manyEntries(n)}, "", text, nil)
	}
	ref, err := ParseReference(text)
	if err != nil {
		return err
	}
	if os.Getenv(saveEnv) != "" {
		return saveHelper(ctx, ref)
	}
	s, err := store.Open(os.Getenv("BERTH_TEST_STORE"))
	if err != nil {
		return err
	}
	if os.Getenv("BERTH_TEST_COLLECT") != "" {
		return collectOn(ctx, s)
	}
	im, err := Pull(ctx, s, ref, FetchOptions{
		Converter: countingConverter{helperConverter(), os.Getenv("BERTH_TEST_COUNT")},
		Progress:  killAt(Phase(os.Getenv("BERTH_TEST_KILL"))),
	})
	if err != nil {
		return err
	}
	fmt.Println(im.Dir())
	return nil
}

// collectOn removes garbage and images, as many as nobody uses, until it is
// killed.
func collectOn(ctx context.Context, s *store.Store) error {
	space := store.Space{Store: s, Users: store.Processes{}, Limits: store.Limits{Quota: 1}}
	for {
		if _, err := space.Collect(ctx, store.Collection{}); err != nil {
			return err
		}
	}
}

// helperConverter is the one that $BERTH_TEST_CONVERTER names, Umoci if none.
func helperConverter() Converter {
	if name := os.Getenv("BERTH_TEST_CONVERTER"); name != "" {
		return ConverterNamed(name, Limits{})
	}
	return Umoci{}
}

// killAt ends the process in the given phase as a crash would.
func killAt(phase Phase) ProgressFunc {
	return func(p Progress) {
		if p.Phase == phase {
			_ = unix.Kill(os.Getpid(), unix.SIGKILL)
			select {}
		}
	}
}

// countingConverter notes each conversion as a byte in a file.
type countingConverter struct {
	Converter
	file string
}

// Convert implements Converter.
func (c countingConverter) Convert(ctx context.Context, l LayerSource, work, out string, p ProgressFunc) error {
	if c.file != "" {
		f, err := os.OpenFile(c.file, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
		if err != nil {
			return err
		}
		defer f.Close()
		if _, err := io.WriteString(f, "x"); err != nil {
			return err
		}
	}
	return c.Converter.Convert(ctx, l, work, out, p)
}

// A helper is a process of its own that pulls.
type helper struct {
	uid    int
	binary string
	dir    string // home, and where the count is
	store  string // "" is in dir
}

// newHelper prepares a process that runs as uid, or as the caller if that is
// not root. Its folders are where another user can reach them; t.TempDir's
// are not.
func newHelper(t *testing.T, uid int) *helper {
	t.Helper()
	return newHelperIn(t, "", uid)
}

// newHelperIn is newHelper with its folders below parent, "" for the usual one.
func newHelperIn(t *testing.T, parent string, uid int) *helper {
	t.Helper()
	if os.Geteuid() != 0 {
		uid = os.Geteuid()
	}
	top, err := os.MkdirTemp(parent, "berth-imagecache-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(top) })
	h := &helper{uid: uid, binary: filepath.Join(top, "test"), dir: filepath.Join(top, "home")}
	copyFile(t, "/proc/self/exe", h.binary)
	for _, err := range []error{os.Chmod(top, 0o755), os.Mkdir(h.dir, 0o700), os.Chown(h.dir, uid, -1)} {
		if err != nil {
			t.Fatal(err)
		}
	}
	return h
}

func copyFile(t *testing.T, from, to string) {
	t.Helper()
	raw, err := os.ReadFile(from)
	if err == nil {
		err = os.WriteFile(to, raw, 0o755)
	}
	if err != nil {
		t.Fatal(err)
	}
}

func (h *helper) storeDir() string {
	if h.store != "" {
		return h.store
	}
	return filepath.Join(h.dir, "store")
}

func (h *helper) countFile() string { return filepath.Join(h.dir, "count") }

// command returns the process that pulls ref, not started.
func (h *helper) command(ctx context.Context, ref Reference, env ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, h.binary)
	cmd.Dir = h.dir
	cmd.Env = append([]string{
		"PATH=" + os.Getenv("PATH"), "HOME=" + h.dir, helperEnv + "=" + ref.String(),
		"BERTH_TEST_STORE=" + h.storeDir(), "BERTH_TEST_COUNT=" + h.countFile(),
	}, env...)
	if h.uid != os.Geteuid() {
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(h.uid), Gid: uint32(h.uid)}}
	}
	return cmd
}

// pull runs the process and returns the image's folder.
func (h *helper) pull(t *testing.T, ref Reference, env ...string) string {
	t.Helper()
	var stderr bytes.Buffer
	cmd := h.command(testContext(t), ref, env...)
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v: %s", err, stderr.String())
	}
	return strings.TrimSpace(string(out))
}

func (h *helper) conversions(t *testing.T) int {
	t.Helper()
	raw, err := os.ReadFile(h.countFile())
	if err != nil {
		t.Fatal(err)
	}
	return len(raw)
}
