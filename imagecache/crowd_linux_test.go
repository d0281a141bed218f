package imagecache

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/berth-hpc/berth/imagecache/store"
)

// crowd is how many processes pull at once.
const crowd = 200

// seedEnv repeats the choices of an earlier run of TestCrowd.
const seedEnv = "BERTH_TEST_SEED"

// TestCrowd starts 200 processes that pull at once, for one image and for
// twenty, alone and with a third of them killed while another process removes
// images.
func TestCrowd(t *testing.T) {
	r := newTestRegistry(t)
	var refs []Reference
	for i := range 20 {
		img := imageOf(t, tarOf(t, file("f", 0o644, strings.Repeat("content", 1<<12)), file("n", 0o644, strconv.Itoa(i))))
		refs = append(refs, r.push(t, fmt.Sprintf("x%d:1", i), img))
	}
	for _, test := range []struct {
		name   string
		refs   []Reference
		deadly bool
	}{
		{"one image", refs[:1], false},
		{"twenty images", refs, false},
		{"one image, a third is killed", refs[:1], true},
		{"twenty images, a third is killed", refs, true},
	} {
		t.Run(test.name, func(t *testing.T) {
			h := newHelper(t, nobodyID)
			if !test.deadly {
				pullers{helper: h, refs: test.refs}.run(t)
				if n := h.conversions(t); n != len(test.refs) {
					t.Errorf("%d conversions", n)
				}
				checkNoLeftovers(t, h.storeDir())
				return
			}
			collector := h.collector(t, test.refs[0])
			pullers{h, test.refs, rand.New(rand.NewPCG(seed(t), 0))}.run(t)
			collector()
			checkVerified(t, h.storeDir())
			checkSwept(t, h.storeDir())
			for _, ref := range test.refs {
				h.pull(t, ref)
			}
			if n := checkVerified(t, h.storeDir()); n != len(test.refs) {
				t.Errorf("afterwards the store has %d images", n)
			}
			checkNoLeftovers(t, h.storeDir())
		})
	}
}

func seed(t *testing.T) uint64 {
	t.Helper()
	n, err := strconv.ParseUint(os.Getenv(seedEnv), 10, 64)
	if err != nil {
		n = rand.Uint64()
	}
	t.Logf("%s=%d repeats the choices of this run", seedEnv, n)
	return n
}

// collector starts a process that removes what nobody uses, and returns how to
// end it.
func (h *helper) collector(t *testing.T, ref Reference) (end func()) {
	t.Helper()
	var out bytes.Buffer
	cmd := h.command(testContext(t), ref, "BERTH_TEST_COLLECT=1")
	cmd.Stderr = &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	return func() {
		_ = cmd.Process.Kill()
		if err := cmd.Wait(); !killed(err) {
			t.Errorf("the collector: %v: %s", err, out.String())
		}
	}
}

func killed(err error) bool {
	var exit *exec.ExitError
	return errors.As(err, &exit) && !exit.Exited() && exit.Sys().(syscall.WaitStatus).Signal() == syscall.SIGKILL
}

// pullers are a crowd of processes that pull refs in turn.
type pullers struct {
	helper *helper
	refs   []Reference
	rng    *rand.Rand // says who is killed, and when; nil for nobody
}

// puller is one of them.
type puller struct {
	cmd    *exec.Cmd
	out    bytes.Buffer
	victim bool
}

// run starts them all and wants all to succeed but those that are killed.
func (p pullers) run(t *testing.T) {
	t.Helper()
	all := make([]*puller, crowd)
	for i := range all {
		all[i] = p.start(t, p.refs[i%len(p.refs)])
	}
	for i, one := range all {
		err := one.cmd.Wait()
		if err != nil && (!one.victim || !killed(err)) {
			t.Errorf("%d: %v: %s", i, err, one.out.String())
		}
	}
}

func (p pullers) start(t *testing.T, ref Reference) *puller {
	t.Helper()
	one := &puller{victim: p.rng != nil && p.rng.IntN(3) == 0}
	env := []string{"BERTH_TEST_CONVERTER=stream"}
	var after time.Duration
	if one.victim {
		phases := []Phase{"", PhaseResolve, PhasePull, PhaseUnpack, PhaseSquash, PhasePublish}
		env = append(env, "BERTH_TEST_KILL="+string(phases[p.rng.IntN(len(phases))]))
		after = time.Duration(p.rng.IntN(3000)) * time.Millisecond
	}
	one.cmd = p.helper.command(testContext(t), ref, env...)
	one.cmd.Stdout, one.cmd.Stderr = &one.out, &one.out
	if err := one.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if one.victim {
		killer := time.AfterFunc(after, func() { _ = one.cmd.Process.Kill() })
		t.Cleanup(func() { killer.Stop() })
	}
	return one
}

// TestRemovedWhilePulled: an image that Pull finds and cannot look into has
// been removed, and is pulled again, but not for ever.
func TestRemovedWhilePulled(t *testing.T) {
	r := newTestRegistry(t)
	ref := r.push(t, "x:1", imageOf(t, tarOf(t, file("f", 0o644, "x"))))
	for _, goneBy := range []int64{2, removedTries, removedTries + 1} {
		s := openStore(t)
		im, err := Pull(testContext(t), s, ref, FetchOptions{})
		if err != nil {
			t.Fatal(err)
		}
		if err := os.Remove(filepath.Join(im.Dir(), store.ConfigName)); err != nil {
			t.Fatal(err)
		}
		r.gets.Store(0)
		r.onRequest(func(http.ResponseWriter, *http.Request) bool {
			if r.gets.Load() == goneBy { // one for each try
				_ = os.RemoveAll(im.Dir())
			}
			return false
		})
		_, err = Pull(testContext(t), s, ref, FetchOptions{})
		if goneBy <= removedTries && err != nil || goneBy > removedTries && !errors.Is(err, store.ErrNotFound) {
			t.Errorf("gone by try %d: %v", goneBy, err)
		}
	}
}
