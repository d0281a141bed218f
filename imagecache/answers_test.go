package imagecache

import (
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/berth-hpc/berth/imagecache/store"
)

const answerTTL = 10 * time.Minute

func TestAnswers(t *testing.T) {
	r := newTestRegistry(t)
	ref := r.push(t, "x:1", imageOf(t, tarOf(t, file("f", 0o644, "x"))))
	now := time.Now()
	a := NewAnswers(filepath.Join(t.TempDir(), "resolve"), answerTTL)
	a.now = func() time.Time { return now }
	resolve := func(p Platform) store.Digest {
		t.Helper()
		d, err := a.Resolve(testContext(t), ref, p, Network{})
		if err != nil {
			t.Fatal(err)
		}
		return d
	}
	old := filepath.Join(a.dir, "old.json")
	if err := os.MkdirAll(a.dir, 0o700); err != nil {
		t.Fatal(err)
	}
	writeFile(t, old, nil)
	if err := os.Chtimes(old, now, now.Add(-2*answerTTL)); err != nil {
		t.Fatal(err)
	}
	first := resolve(Platform{})
	if _, err := os.Stat(old); err == nil {
		t.Error("an old answer stays for ever")
	}
	moved := r.push(t, "x:1", imageOf(t, tarOf(t, file("f", 0o644, "moved"))))
	if second := resolve(HostPlatform()); second != first || r.gets.Load() != 0 {
		t.Errorf("asked again: %d requests, %v", r.gets.Load(), second)
	}
	now = now.Add(answerTTL)
	if third := resolve(Platform{}); third == first || r.gets.Load() == 0 {
		t.Errorf("%v is too old to be believed", third)
	}
	if err := os.WriteFile(a.path(answer{Reference: moved.String(), Platform: HostPlatform().String()}), []byte("{broken"), 0o600); err != nil {
		t.Fatal(err)
	}
	resolve(Platform{})
}

// TestAnswersManyAtOnce lets many ask at once; all get the answer.
func TestAnswersManyAtOnce(t *testing.T) {
	r := newTestRegistry(t)
	ref := r.push(t, "x:1", imageOf(t, tarOf(t, file("f", 0o644, "x"))))
	a := NewAnswers(filepath.Join(t.TempDir(), "resolve"), answerTTL)
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() {
			if _, err := a.Resolve(testContext(t), ref, Platform{}, Network{}); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if entries, _ := os.ReadDir(a.dir); len(entries) != 1 {
		t.Errorf("left behind: %v", entries)
	}
}
