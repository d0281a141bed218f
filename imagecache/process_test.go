package imagecache

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/berth-hpc/berth/imagecache/store"
)

// TestCrash kills a pull in each of its phases. Nothing may be visible, and
// the next pull must work and clean up.
func TestCrash(t *testing.T) {
	r := newTestRegistry(t)
	ref := r.push(t, "x:1", imageOf(t, hardImage(t)...))
	for _, phase := range []Phase{PhasePull, PhaseUnpack, PhaseSquash, PhasePublish} {
		t.Run(string(phase), func(t *testing.T) {
			h := newHelper(t, nobodyID)
			err := h.command(testContext(t), ref, "BERTH_TEST_KILL="+string(phase)).Run()
			var exit *exec.ExitError
			if !errors.As(err, &exit) || exit.Exited() {
				t.Fatalf("was not killed: %v", err)
			}
			if entries, err := os.ReadDir(filepath.Join(h.storeDir(), "images/sha256")); err != nil || len(entries) > 0 {
				t.Errorf("visible: %v, %v", entries, err)
			}
			h.pull(t, ref)
			checkNoLeftovers(t, h.storeDir())
		})
	}
}

// TestCrashAtAnyTime kills pulls after ever longer times, into one store.
func TestCrashAtAnyTime(t *testing.T) {
	r := newTestRegistry(t)
	h := newHelper(t, nobodyID)
	for i := range 15 {
		img := imageOf(t, tarOf(t, file("f", 0o644, strings.Repeat("content", 1<<14)), file("n", 0o644, string(rune('a'+i)))))
		ref := r.push(t, "x:1", img)
		cmd := h.command(testContext(t), ref)
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		killer := time.AfterFunc(time.Duration(10+i*6)*time.Millisecond, func() { _ = cmd.Process.Kill() })
		_ = cmd.Wait()
		killer.Stop()
		checkComplete(t, h.storeDir())
	}
	h.pull(t, r.push(t, "x:1", imageOf(t, tarOf(t, file("last", 0o644, "")))))
	checkNoLeftovers(t, h.storeDir())
}

// checkComplete reads every image that the store shows.
func checkComplete(t *testing.T, root string) {
	t.Helper()
	s, err := store.OpenExisting(root)
	if errors.Is(err, fs.ErrNotExist) {
		return // killed before it made a store
	}
	if err != nil {
		t.Fatal(err)
	}
	images, err := s.List()
	if err != nil {
		t.Fatal(err)
	}
	for _, im := range images {
		if got := readTree(t, im.Rootfs())["f"]; len(got) < 1<<14 {
			t.Errorf("%v: %d bytes", im.Digest(), len(got))
		}
		if _, err := im.Manifest(); err != nil {
			t.Error(err)
		}
		if _, err := im.Record(); err != nil {
			t.Error(err)
		}
	}
}

// TestMksquashfsEndsWithUs kills a pull while mksquashfs runs. That must end,
// too: it would go on writing into a folder that is swept.
func TestMksquashfsEndsWithUs(t *testing.T) {
	h := newHelper(t, nobodyID)
	fifo := filepath.Join(h.dir, "alive")
	if err := errors.Join(unix.Mkfifo(fifo, 0o600), os.Chown(fifo, h.uid, -1)); err != nil {
		t.Fatal(err)
	}
	// The stand-in keeps the fifo open for writing as long as it lives.
	program := filepath.Join(h.dir, "mksquashfs")
	if err := os.WriteFile(program, []byte("#!/bin/sh\nexec >"+fifo+"\necho ready\nexec sleep 60\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	cmd := h.command(testContext(t), mustParse(t, "x"), "BERTH_TEST_SQUASH="+h.dir, "BERTH_TEST_PROGRAM="+program)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	alive, err := os.Open(fifo)
	if err != nil {
		t.Fatal(err)
	}
	defer alive.Close()
	if err := alive.SetReadDeadline(time.Now().Add(testTimeout / 2)); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(alive, make([]byte, len("ready\n"))); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Process.Kill()
	_ = cmd.Wait()
	if _, err := io.ReadAll(alive); err != nil {
		t.Errorf("it lives on: %v", err)
	}
}
