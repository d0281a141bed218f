package jobstate

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/berth-hpc/berth/fault"
)

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// newFolder makes a folder that a worker is at, and returns how that ends.
func newFolder(t *testing.T) (f Folder, end func()) {
	t.Helper()
	f, err := Create(t.TempDir(), Request{Job: "7", UID: 1, GID: 2, Image: "a/b:c"})
	must(t, err)
	lock, err := f.TryLock()
	must(t, err)
	t.Cleanup(func() { lock.Close() })
	return f, func() { lock.Close() }
}

type result struct {
	ready Ready
	err   error
}

type startWait func(ctx context.Context, f Folder, progress func(string)) <-chan result

// bothWaits runs a test with Wait and with the later half of it alone, in
// which the kernel tells what changes.
func bothWaits(t *testing.T, test func(t *testing.T, waitFor startWait)) {
	t.Helper()
	for name, wait := range map[string]func(context.Context, Folder, func(string)) (Ready, error){
		"from the start": func(ctx context.Context, f Folder, p func(string)) (Ready, error) { return f.Wait(ctx, p) },
		"told": func(ctx context.Context, f Folder, p func(string)) (Ready, error) {
			return (&waiter{Folder: f, progress: p}).told(ctx)
		},
	} {
		t.Run(name, func(t *testing.T) {
			test(t, func(ctx context.Context, f Folder, progress func(string)) <-chan result {
				c := make(chan result, 1)
				go func() {
					ready, err := wait(ctx, f, progress)
					c <- result{ready, err}
				}()
				return c
			})
		})
	}
}

func receive[T any](t *testing.T, c <-chan T) T {
	t.Helper()
	select {
	case v := <-c:
		return v
	case <-time.After(10 * time.Second):
		t.Fatal("waited in vain")
		panic("unreachable")
	}
}

func TestWaitSeesProgressAndOutcome(t *testing.T) {
	bothWaits(t, func(t *testing.T, waitFor startWait) {
		f, _ := newFolder(t)
		lines := make(chan string, 10)
		done := waitFor(t.Context(), f, func(line string) { lines <- line })
		must(t, f.SetProgress("one\x1b\ntwo"))
		if got := receive(t, lines); got != "one  two" {
			t.Errorf("progress %q", got)
		}
		must(t, f.SetProgress("three"))
		if got := receive(t, lines); got != "three" {
			t.Errorf("progress %q", got)
		}
		want := Ready{Digest: "sha256:1", Mount: "1.p1", Dir: "/store/1"}
		must(t, f.SetState(State{Ready: &want}))
		if got := receive(t, done); got.err != nil || got.ready != want {
			t.Errorf("%+v", got)
		}
	})
}

// root may have no inotify instance left: the outcome still arrives.
func TestWaitWithoutInotify(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	must(t, sleep(ctx, nil))
	cancel()
	if err := sleep(ctx, nil); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

func TestWaitPassesFailures(t *testing.T) {
	f, _ := newFolder(t)
	cause := &fault.Error{Op: "pull", Arg: "a/b", Blame: fault.User, Remedy: "look\nup", Err: errors.New("no\x00such")}
	must(t, f.SetState(State{Failure: fault.NewMessage(cause)}))
	_, err := f.Wait(t.Context(), nil)
	if err == nil || err.Error() != "pull a/b: no such" || fault.Of(err) != fault.User || fault.Remedy(err) != "look up" {
		t.Errorf("%v, %v, %q", err, fault.Of(err), fault.Remedy(err))
	}
}

// A worker that is killed leaves no outcome, only a free lock.
func TestWaitNoticesADeadWorker(t *testing.T) {
	bothWaits(t, func(t *testing.T, waitFor startWait) {
		f, end := newFolder(t)
		done := waitFor(t.Context(), f, nil)
		end()
		if got := receive(t, done); got.err == nil || !strings.Contains(got.err.Error(), "was killed") {
			t.Errorf("%+v", got)
		}
	})
}

func TestWaitEndsWithItsContext(t *testing.T) {
	bothWaits(t, func(t *testing.T, waitFor startWait) {
		f, _ := newFolder(t)
		ctx, cancel := context.WithCancel(t.Context())
		done := waitFor(ctx, f, nil)
		cancel()
		if got := receive(t, done); !errors.Is(got.err, context.Canceled) {
			t.Errorf("%+v", got)
		}
	})
}

// The lock passes to a child with the descriptor, and looking at it takes
// nothing from those who want it.
func TestLockPassesToAChild(t *testing.T) {
	f, end := newFolder(t)
	if second, err := f.TryLock(); second != nil || err != nil {
		t.Fatalf("locked twice: %v", err)
	}
	end()
	lock, err := f.TryLock()
	must(t, err)
	cmd := exec.Command("cat")
	cmd.ExtraFiles = []*os.File{lock}
	in, err := cmd.StdinPipe()
	must(t, err)
	must(t, cmd.Start())
	lock.Close()
	if !f.Busy() {
		t.Error("free while the child has it")
	}
	in.Close()
	must(t, cmd.Wait())
	if f.Busy() {
		t.Error("busy after the child")
	}
	if lock, err = f.TryLock(); lock == nil || err != nil {
		t.Errorf("not free after the child: %v", err)
	}
}

func TestStateIsOneOfTwo(t *testing.T) {
	f, _ := newFolder(t)
	if _, err := f.State(); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("without a state: %v", err)
	}
	must(t, f.SetState(State{}))
	if _, err := f.State(); err == nil || errors.Is(err, fs.ErrNotExist) {
		t.Errorf("an empty state: %v", err)
	}
}

func TestKeyTellsRequestsApart(t *testing.T) {
	a := Request{Image: "a", Digest: "b"}
	for _, b := range []Request{{Image: "a"}, {Image: "ab"}, {Image: "a", Digest: "c"}, {UID: 1, Image: "a", Digest: "b"}} {
		if a.Key() == b.Key() {
			t.Errorf("%+v and %+v share %s", a, b, a.Key())
		}
	}
	if b := (Request{Job: "9", Image: "a", Digest: "b"}); a.Key() != b.Key() || len(a.Key()) != 16 {
		t.Errorf("key %s", a.Key())
	}
}

func TestLeases(t *testing.T) {
	run := t.TempDir()
	if err := SetLease(run, "1", "x.p1"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("lease of a job that is over: %v", err)
	}
	for _, job := range []JobID{"1", "2"} {
		_, err := Create(run, Request{Job: job, Image: "a"})
		must(t, err)
		must(t, SetLease(run, job, "x.p1"))
	}
	must(t, SetLease(run, "2", "y.p1"))
	got, err := Leased(run)
	must(t, err)
	if want := map[string][]string{"x.p1": {"job 1", "job 2"}, "y.p1": {"job 2"}}; !reflect.DeepEqual(got, want) {
		t.Errorf("leased: %v, want %v", got, want)
	}
	must(t, os.RemoveAll(JobDir(run, "1")))
	got, err = Leased(run)
	must(t, err)
	if want := map[string][]string{"x.p1": {"job 2"}, "y.p1": {"job 2"}}; !reflect.DeepEqual(got, want) {
		t.Errorf("leased: %v, want %v", got, want)
	}
	must(t, os.RemoveAll(JobDir(run, "2")))
	if got, err := Leased(run); err != nil || len(got) != 0 {
		t.Errorf("leased: %v, %v", got, err)
	}
}

func TestSettled(t *testing.T) {
	f, end := newFolder(t)
	if !f.Settled() {
		t.Error("not settled while a worker works")
	}
	end()
	if f.Settled() {
		t.Error("settled without worker and outcome")
	}
	failure := &fault.Message{Text: "x", Blame: "site"}
	for _, tt := range []struct {
		name  string
		state State
		want  bool
	}{
		{"ready", State{Ready: &Ready{}}, true},
		{"failed now", State{Failure: failure, Time: time.Now()}, true},
		{"failed long ago", State{Failure: failure, Time: time.Now().Add(-2 * FreshFor)}, false},
	} {
		must(t, f.SetState(tt.state))
		if got := f.Settled(); got != tt.want {
			t.Errorf("%s: %v", tt.name, got)
		}
	}
	must(t, f.Forget())
	must(t, f.Forget())
	left, err := filepath.Glob(filepath.Join(f.Path(), "*"))
	must(t, err)
	if len(left) != 2 { // request.json and lock
		t.Errorf("left: %q", left)
	}
}

func TestEnsureReportsWhatItCannotStart(t *testing.T) {
	run := t.TempDir()
	for name, berth := range map[string][]string{"missing": {filepath.Join(run, "no-such")}, "failing": {"/bin/sh", "-c", "echo bad luck; exit 3"}} {
		_, err := Ensure(t.Context(), berth, run, Request{Job: "1", Image: "a"})
		if err == nil || fault.Of(err) != fault.Site || fault.Remedy(err) == "" {
			t.Errorf("%s: %v", name, err)
		}
	}
}
