package imagecache

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/berth-hpc/berth/imagecache/store"
	"github.com/berth-hpc/berth/testdata/faultfs"
	"golang.org/x/sys/unix"
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

// TestFaultsOfAnswers interrupts the writing of an answer. The answer that
// is given stays right, and what is left of the other goes in its time.
func TestFaultsOfAnswers(t *testing.T) {
	r := newTestRegistry(t)
	ref := r.push(t, "x:1", imageOf(t, tarOf(t, file("f", 0o644, "x"))))
	want, err := Resolve(testContext(t), ref, Platform{}, Network{})
	if err != nil {
		t.Fatal(err)
	}
	ask := func(dir string, at time.Time) error {
		a := NewAnswers(filepath.Join(dir, "resolve"), answerTTL)
		a.now = func() time.Time { return at }
		d, err := a.Resolve(context.Background(), ref, Platform{}, Network{})
		if err == nil && d != want {
			err = fmt.Errorf("the answer is %v, not %v", d, want)
		}
		return err
	}
	faultfs.Trial{
		Seeds: 4,
		Do: func(dir string) error {
			err := ask(dir, time.Now())
			if _, serr := os.Stat(dir); serr != nil {
				err = faultfs.ErrPower // an answer that cannot be kept is none of our errors
			}
			return err
		},
		Check: func(t testing.TB, dir string, err error) {
			if err != nil && !errors.Is(err, faultfs.ErrPower) {
				t.Errorf("not kept, and not answered: %v", err)
			}
			if err := errors.Join(ask(dir, time.Now()), ask(dir, time.Now().Add(2*answerTTL))); err != nil {
				t.Errorf("the next: %v", err)
			}
			if entries, err := os.ReadDir(filepath.Join(dir, "resolve")); err != nil || len(entries) != 1 {
				t.Errorf("left: %v, %v", entries, err)
			}
		},
	}.Run(t)
}

// Nobody but the user says which digest a tag had: answers in a folder, or of a
// file, that others could have made are not believed, and links not followed.
func TestAnswersOfOthers(t *testing.T) {
	r := newTestRegistry(t)
	ref := r.push(t, "x:1", imageOf(t, tarOf(t, file("f", 0o644, "x"))))
	forged, err := store.ParseDigest("sha256:" + strings.Repeat("a", 64))
	must(t, err)
	for name, spoil := range map[string]func(dir, path string) error{
		"control": func(string, string) error { return nil },
		"a link": func(dir, path string) error {
			return errors.Join(os.Rename(path, filepath.Join(dir, "elsewhere")), os.Symlink("elsewhere", path))
		},
		"a file that others may write":   func(_, path string) error { return os.Chmod(path, 0o622) },
		"a folder that others may write": func(dir, _ string) error { return os.Chmod(dir, 0o777|os.ModeSticky) },
		"a link to the folder": func(dir, _ string) error {
			return errors.Join(os.Rename(dir, dir+".real"), os.Symlink(dir+".real", dir))
		},
		"a fifo": func(_, path string) error {
			return errors.Join(os.Remove(path), unix.Mkfifo(path, 0o600))
		},
		"another's file":   func(_, path string) error { return asAnother(os.Lchown(path, 64999, -1)) },
		"another's folder": func(dir, _ string) error { return asAnother(os.Lchown(dir, 64999, -1)) },
	} {
		t.Run(name, func(t *testing.T) {
			a := NewAnswers(filepath.Join(t.TempDir(), "resolve"), answerTTL)
			must(t, os.Mkdir(a.dir, 0o700))
			ask := answer{Reference: ref.String(), Platform: HostPlatform().String(), Digest: forged, Asked: time.Now()}
			must(t, store.WriteJSON(a.path(ask), 0o600, ask))
			if err := spoil(a.dir, a.path(ask)); errors.Is(err, errors.ErrUnsupported) {
				t.Skip("needs root: gives files away")
			} else if err != nil {
				t.Fatal(err)
			}
			d, err := a.Resolve(testContext(t), ref, Platform{}, Network{})
			if err != nil || (d == forged) != (name == "control") {
				t.Errorf("got %v, %v", d, err)
			}
		})
	}
}

// asAnother is err, or that only root could have done it.
func asAnother(err error) error {
	if errors.Is(err, os.ErrPermission) {
		return errors.ErrUnsupported
	}
	return err
}
