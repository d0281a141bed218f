package faultfs

import (
	"crypto/sha256"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// A Trial is something to do to a folder, and what must hold afterwards,
// whatever happened meanwhile.
type Trial struct {
	// Prepare makes what is there before. It may be nil.
	Prepare func(t testing.TB, dir string)
	// Do is interrupted at every step.
	Do func(dir string) error
	// Check looks at what is left, and does to it what comes next. err is what
	// Do returned; if nil, its effect has to be there. For a power cut in the
	// midst of Do it is ErrPower.
	Check func(t testing.TB, dir string, err error)
	// Seeds is how many random disks there are for each power cut, beside the
	// five that are not random; Seed is the first's.
	Seeds int
	Seed  uint64
	// Every is how many operations lie between two that are tried; 0 means that
	// each is. The first and the last are.
	Every int
}

// LongEnv, if set to anything, has every Trial try each operation, with ten
// times as many random disks.
const LongEnv = "BERTH_TEST_LONG"

// long makes tr thorough if it is to be.
func (tr Trial) long() Trial {
	if os.Getenv(LongEnv) != "" {
		tr.Every, tr.Seeds = 1, 10*tr.Seeds
	}
	return tr
}

// ErrPower stands for the error of a Do whose machine lost power.
var ErrPower = errPower{}

type errPower struct{}

// Error implements error.
func (errPower) Error() string { return "the power is gone" }

// Run tries all faults but kills, which need processes.
func (tr Trial) Run(t *testing.T) {
	t.Run("power cut", tr.PowerCuts)
	t.Run("power cut while it runs", func(t *testing.T) { tr.Faults(t, PowerCut) })
	t.Run("full", func(t *testing.T) { tr.Faults(t, Full) })
	t.Run("full once", func(t *testing.T) { tr.Faults(t, FullOnce) })
	t.Run("I/O error", func(t *testing.T) { tr.Faults(t, IOError) })
}

// start mounts and prepares a file system.
func (tr Trial) start(t testing.TB) *FS {
	t.Helper()
	f := Mount(t)
	if tr.Prepare != nil {
		tr.Prepare(t, f.Dir())
	}
	f.Settle()
	return f
}

// record does it once without a fault.
func (tr Trial) record(t testing.TB) *FS {
	t.Helper()
	f := tr.start(t)
	if err := tr.Do(f.Dir()); err != nil {
		t.Fatalf("without any fault: %v\n%s", err, list(f.Ops()))
	}
	return f
}

func list(ops []Op) string {
	var text strings.Builder
	for _, o := range ops {
		fmt.Fprintln(&text, o)
	}
	return text.String()
}

// steps returns the numbers of operations to try, of n.
func (tr Trial) steps(from, n int) []int {
	every := max(tr.Every, 1)
	var steps []int
	for i := from; i < n; i += every {
		steps = append(steps, i)
	}
	return append(steps, n)
}

// PowerCuts checks every disk that a power cut may leave after each operation,
// and after the last. Disks that are the same, because nothing was synced or
// everything, are one.
func (tr Trial) PowerCuts(t *testing.T) {
	tr = tr.long()
	f := tr.record(t)
	ops, seen := f.Ops(), map[[sha256.Size]byte]bool{}
	for _, n := range tr.steps(0, len(ops)) {
		err, name := error(ErrPower), "before the first"
		if n == len(ops) {
			err = nil
			clear(seen) // now more has to be there
		}
		if n > 0 {
			name = "after " + ops[n-1].String()
		}
		t.Run(name, func(t *testing.T) { tr.disks(t, f, n, err, seen) })
	}
	if t.Failed() {
		t.Logf("the operations:\n%s", list(ops))
	}
}

// disks checks each disk after n operations that was not seen before.
func (tr Trial) disks(t *testing.T, f *FS, n int, err error, seen map[[sha256.Size]byte]bool) {
	for _, s := range Survivals(tr.Seed, tr.Seeds) {
		sum := f.survivor(n, s).sum()
		if seen[sum] {
			continue
		}
		seen[sum] = true
		t.Run(s.String(), func(t *testing.T) { tr.disk(t, f, n, s, err) })
	}
}

func (tr Trial) disk(t *testing.T, f *FS, n int, s Survival, err error) {
	dir := filepath.Join(scratch(t), "disk")
	if err := f.Disk(n, s, dir); err != nil {
		t.Fatal(err)
	}
	tr.Check(t, dir, err)
}

// scratch is a folder in memory if there is one: the folders laid out there are
// many, and what is synced in them need not wait for a disk.
func scratch(t *testing.T) string {
	dir, err := os.MkdirTemp("/dev/shm", "berth-faultfs-")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

// Faults does it again with a fault at each operation. It checks what is left
// there once the fault is over, and, in case a sync failed or the power was
// cut, what is on disk.
func (tr Trial) Faults(t *testing.T, at func(n int) Fault) {
	tr = tr.long()
	f := tr.record(t)
	ops := f.Ops()
	for _, n := range tr.steps(1, len(ops)) {
		t.Run("at "+ops[n-1].String(), func(t *testing.T) { tr.fault(t, f, at(n)) })
	}
}

func (tr Trial) fault(t *testing.T, f *FS, fault Fault) {
	f.Reset()
	f.Plan(fault)
	err := tr.Do(f.Dir())
	n, cut := len(f.Ops()), f.isCut()
	f.Heal()
	switch {
	case cut: // it may have been done before, or with less operations than last time
		if err != nil {
			err = ErrPower
		}
		t.Run("on disk", func(t *testing.T) { tr.disk(t, f, n, Nothing(), err) })
	default:
		t.Run("on disk", func(t *testing.T) { tr.disk(t, f, n, Nothing(), err) })
		t.Run("at once", func(t *testing.T) { tr.Check(t, f.Dir(), err) })
	}
	if t.Failed() {
		t.Logf("it said: %v; the operations:\n%s", err, list(f.Ops()))
	}
}
