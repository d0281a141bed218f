package main

import (
	"context"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"
)

// testUnsquash is a process that unpacks $1, an image, to $2 by the program $3.
func testUnsquash() {
	if err := unsquash(context.Background(), os.Args[3], os.Args[2], os.Args[1]); err != nil {
		os.Exit(1)
	}
}

// TestUnsquashfsEndsWithUs kills a process that unpacks. unsquashfs must end,
// too: it would go on writing into a folder that is swept.
func TestUnsquashfsEndsWithUs(t *testing.T) {
	// The stand-in says that it runs, and keeps the pipe open as long as it does.
	program := filepath.Join(t.TempDir(), "unsquashfs")
	if err := os.WriteFile(program, []byte("#!/bin/sh\necho ready >&3\nexec sleep 60\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	alive, theirs, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer alive.Close()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "/proc/self/exe", "image", "tree", program)
	cmd.Args[0] = "unsquash" // see TestMain
	cmd.ExtraFiles = []*os.File{theirs}
	err = cmd.Start()
	theirs.Close()
	if err != nil {
		t.Fatal(err)
	}
	if err := alive.SetReadDeadline(time.Now().Add(30 * time.Second)); err != nil {
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
