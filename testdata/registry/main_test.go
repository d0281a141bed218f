package main

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/berth-hpc/berth/testdata/images"
)

func TestServeAnnouncesAndLogs(t *testing.T) {
	dir := t.TempDir()
	f := flags{
		Listen: "127.0.0.1:0", Dir: filepath.Join(dir, "store"),
		Log: filepath.Join(dir, "log"), ReadyFile: filepath.Join(dir, "ready"),
	}
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	done := make(chan error, 1)
	go func() { done <- serve(ctx, f) }()
	host := waitFor(t, f.ReadyFile)
	img, err := images.Tiny()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := images.Push(t.Context(), host, "tiny:v1", img); err != nil {
		t.Fatal(err)
	}
	stop()
	select {
	case err := <-done:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(10 * time.Second):
		t.Fatal("did not end")
	}
	log, err := os.ReadFile(f.Log)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(log), "PUT /v2/tiny/manifests/v1 201 0\n") {
		t.Errorf("log:\n%s", log)
	}
}

func TestServeFailsWhenItCannotListen(t *testing.T) {
	err := serve(t.Context(), flags{Listen: "192.0.2.1:1", Dir: t.TempDir()})
	if err == nil || !strings.Contains(err.Error(), "192.0.2.1:1") {
		t.Errorf("%v", err)
	}
}

// waitFor returns what a file holds once it exists, within 10 s.
func waitFor(t *testing.T, path string) string {
	t.Helper()
	limit, again := time.After(10*time.Second), time.NewTicker(5*time.Millisecond)
	defer again.Stop()
	for {
		if data, err := os.ReadFile(path); err == nil {
			return strings.TrimSpace(string(data))
		}
		select {
		case <-limit:
			t.Fatalf("%s does not appear", path)
		case <-again.C:
		}
	}
}
