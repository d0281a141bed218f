package main

import (
	"encoding/binary"
	"errors"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/berth-hpc/berth/fault"
)

// newSavedStep has tasks tasks, the first of which runs script.
func newSavedStep(t *testing.T, tasks int, script string) (*savedStep, func(n uint64)) {
	t.Helper()
	fd, err := unix.Eventfd(0, unix.EFD_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	counter := os.NewFile(uintptr(fd), "counter")
	cmd := exec.CommandContext(t.Context(), "/bin/sh", "-c", script)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { counter.Close(); _ = cmd.Process.Kill() })
	return &savedStep{task: cmd.Process.Pid, tasks: tasks, counter: counter}, func(n uint64) {
		var b [8]byte
		binary.NativeEndian.PutUint64(b[:], n)
		if _, err := counter.Write(b[:]); err != nil {
			t.Fatal(err)
		}
	}
}

const otherEnded = 1 << 32

// A step is saved when all its tasks have started and ended by themselves,
// whatever their exit codes.
func TestWhichStepsAreSaved(t *testing.T) {
	for name, tc := range map[string]struct {
		tasks  int
		script string
		counts []uint64
		sig    os.Signal
		lost   string
		code   int
	}{
		"one task":           {1, "exit 0", []uint64{1}, nil, "", 0},
		"one that fails":     {1, "exit 3", []uint64{1}, nil, "", 3},
		"three":              {3, "exit 0", []uint64{1, 1, otherEnded, 1, otherEnded}, nil, "", 0},
		"one did not start":  {3, "exit 0", []uint64{1, otherEnded, 1, otherEnded}, nil, "1 of 3 tasks did not start", 0},
		"it did not start":   {1, "exit 1", nil, nil, "1 of 1 tasks did not start", 1},
		"killed":             {2, "kill -9 $$", []uint64{2}, nil, "a signal ended task 0: killed", 137},
		"told to end":        {2, "exit 0", []uint64{2}, syscall.SIGTERM, "the step was told to end", 0},
		"another signal":     {1, "exit 0", []uint64{1}, syscall.SIGUSR1, "", 0},
		"it ends before all": {2, "exit 0", []uint64{2, otherEnded}, nil, "", 0},
	} {
		t.Run(name, func(t *testing.T) {
			step, count := newSavedStep(t, tc.tasks, tc.script)
			caught := make(chan os.Signal, 1)
			if tc.sig != nil {
				caught <- tc.sig
			}
			for _, n := range tc.counts {
				count(n)
			}
			status, told, err := step.wait(caught)
			if err != nil || step.lost(status, told) != tc.lost {
				t.Errorf("%q, %v; want %q", step.lost(status, told), err, tc.lost)
			}
			s := &session{process: process{stderr: os.Stderr}}
			if code := report(os.Stderr, s.endAs(status, nil)); code != tc.code {
				t.Errorf("exit status %d, want %d", code, tc.code)
			}
		})
	}
}

// The batch script gets the signals that are for it alone.
func TestBatchScriptGetsSignals(t *testing.T) {
	step, count := newSavedStep(t, 1, "trap 'exit 5' USR1; kill -STOP $$; while :; do sleep 0.01; done")
	step.batch = true
	count(1)
	var status syscall.WaitStatus
	if _, err := syscall.Wait4(step.task, &status, syscall.WUNTRACED, nil); err != nil || !status.Stopped() {
		t.Fatal(err)
	}
	if err := syscall.Kill(step.task, syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	caught := make(chan os.Signal, 1)
	caught <- syscall.SIGUSR1
	if status, _, err := step.wait(caught); err != nil || status.ExitStatus() != 5 {
		t.Errorf("ended with %v, %v", status, err)
	}
}

// The task's exit code counts more than that of a save that fails, which is
// said in any case.
func TestExitOfAStepThatIsNotSaved(t *testing.T) {
	full := &fault.Error{Op: "save", Blame: fault.Site, Err: errors.New("no room")}
	for status, want := range map[syscall.WaitStatus]int{0: 75, 7 << 8: 7, 9: 137} {
		r, w, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		s := &session{process: process{stderr: w}}
		if code := report(w, s.endAs(status, full)); code != want {
			t.Errorf("status %#x: exit status %d, want %d", status, code, want)
		}
		w.Close()
		text := make([]byte, 1024)
		n, _ := r.Read(text)
		if strings.Count(string(text[:n]), "no room") != 1 {
			t.Errorf("says %q", text[:n])
		}
		r.Close()
	}
}
