package store

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/berth-hpc/berth/fault"
)

// someUsers use the images whose digests begin with one of its characters.
type someUsers string

func (u someUsers) Of(_ context.Context, im Image) ([]string, error) {
	if strings.Contains(string(u), im.Digest().Hex()[:1]) {
		return []string{"job 1"}, nil
	}
	return nil, nil
}

func (u someUsers) IfUnused(ctx context.Context, im Image, remove func() error) error {
	if by, _ := u.Of(ctx, im); len(by) > 0 {
		return &InUseError{By: by}
	}
	return remove()
}

// putImage publishes an image of so many bytes that was used so many hours ago.
func putImage(t *testing.T, s *Store, c byte, bytes int64, hours int) Image {
	t.Helper()
	im, err := publishNew(testContext(t), s, digest(c))
	if err != nil {
		t.Fatal(err)
	}
	resize(t, im, bytes)
	used := time.Now().Add(-time.Duration(hours) * time.Hour)
	if err := os.Chtimes(im.Rootfs(), used, used); err != nil {
		t.Fatal(err)
	}
	return im
}

func resize(t *testing.T, im Image, bytes int64) {
	t.Helper()
	if err := errors.Join(os.Chmod(im.Rootfs(), 0o644), os.Truncate(im.Rootfs(), bytes), os.Chmod(im.Rootfs(), 0o444)); err != nil {
		t.Fatal(err)
	}
}

// held lists the first characters of the images' digests.
func held(t *testing.T, s *Store) string {
	t.Helper()
	images, err := s.List()
	if err != nil {
		t.Fatal(err)
	}
	var all strings.Builder
	for _, im := range images {
		all.WriteString(im.Digest().Hex()[:1])
	}
	return all.String()
}

// TestReserve: images a, b, c and d of 100 bytes each, a the longest unused.
func TestReserve(t *testing.T) {
	const quota = 450
	for _, test := range []struct {
		name     string
		limits   Limits
		used     string // by jobs
		kept     string
		reserved int64 // by another pull
		bytes    int64
		left     string
		fails    string
	}{
		{name: "no limits", bytes: 1000, left: "abcd"},
		{name: "within the quota", limits: Limits{Quota: quota, LowWater: quota}, bytes: 50, left: "abcd"},
		{name: "the longest unused goes", limits: Limits{Quota: quota, LowWater: quota}, bytes: 51, left: "bcd"},
		{name: "as many as needed", limits: Limits{Quota: quota, LowWater: quota}, bytes: 200, left: "cd"},
		{name: "down to the low-water mark", limits: Limits{Quota: quota, LowWater: 300}, bytes: 51, left: "cd"},
		{name: "not a used one", limits: Limits{Quota: quota, LowWater: quota}, used: "ab", bytes: 51, left: "abd"},
		{name: "not a kept one", limits: Limits{Quota: quota, LowWater: quota}, kept: "ac", bytes: 51, left: "acd"},
		{name: "others' reservations count", limits: Limits{Quota: quota, LowWater: quota}, reserved: 100, bytes: 51, left: "cd"},
		{name: "the low-water mark is a wish", limits: Limits{Quota: quota, LowWater: 10}, used: "abc", bytes: 60, left: "abc"},
		{name: "nothing goes in vain", limits: Limits{Quota: quota, LowWater: quota}, used: "abc", bytes: 200, left: "abcd", fails: "may take 0.0 MB (store.quota)"},
		{name: "larger than the quota", limits: Limits{Quota: quota, LowWater: quota}, bytes: 451, left: "abcd", fails: "are needed"},
		{name: "no such disk", limits: Limits{MinFree: 1 << 60}, bytes: 1, left: "abcd", fails: "are to stay so (store.min_free)"},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := open(t)
			for i, c := range "abcd" {
				im := putImage(t, s, byte(c), 100, 9-i)
				if strings.ContainsRune(test.kept, c) {
					if err := s.Keep(im.Digest(), "", Keep{}); err != nil {
						t.Fatal(err)
					}
				}
			}
			if test.reserved > 0 {
				other, err := s.Lock(testContext(t), digest('e'), nil)
				if err != nil {
					t.Fatal(err)
				}
				defer other.Release()
				if err := other.reserve(test.reserved); err != nil {
					t.Fatal(err)
				}
			}
			lock, err := s.Lock(testContext(t), digest('f'), nil)
			if err != nil {
				t.Fatal(err)
			}
			defer lock.Release()
			test.limits.Settings = "store."
			sp := &Space{Store: s, Limits: test.limits, Users: someUsers(test.used)}
			err = sp.Reserve(testContext(t), lock, test.bytes)
			if (err != nil) != (test.fails != "") {
				t.Fatalf("%v; want %q", err, test.fails)
			}
			if err != nil && (!strings.Contains(err.Error(), test.fails) || fault.Of(err) != fault.Site || fault.Remedy(err) == "") {
				t.Errorf("%v (%v: %s); want %q", err, fault.Of(err), fault.Remedy(err), test.fails)
			}
			if got := held(t, s); got != test.left {
				t.Errorf("left %q, want %q", got, test.left)
			}
		})
	}
}

// TestReservationsOfTheDead: what a lock file says counts while its lock is
// held, and nobody inherits it.
func TestReservationsOfTheDead(t *testing.T) {
	s := open(t)
	lock, err := s.Lock(testContext(t), digest('a'), nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := lock.reserve(70); err != nil {
		t.Fatal(err)
	}
	dir, err := lock.TempDir(os.Geteuid(), os.Getegid())
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, RootfsName), make([]byte, 30), 0o600); err != nil {
		t.Fatal(err)
	}
	if reserved, pending := s.reservations(""); reserved != 70 || pending != 40 {
		t.Errorf("reserved %d, pending %d", reserved, pending)
	}
	if reserved, _ := s.reservations(Key(digest('a'))); reserved != 0 {
		t.Errorf("its own reservation counts: %d", reserved)
	}
	lock.file.Close() // as a kill does
	if reserved, pending := s.reservations(""); reserved != 0 || pending != 0 {
		t.Errorf("a dead process has reserved %d, pending %d", reserved, pending)
	}
	lock, err = s.Lock(testContext(t), digest('a'), nil)
	if err != nil {
		t.Fatal(err)
	}
	if reserved, _ := s.reservations(""); reserved != 0 {
		t.Errorf("the next holder inherited %d", reserved)
	}
	if err := errors.Join(lock.reserve(5), lock.Release()); err != nil {
		t.Fatal(err)
	}
	if data, err := os.ReadFile(filepath.Join(s.locksDir(), Key(digest('a')))); err != nil || len(data) > 0 {
		t.Errorf("left %q, %v", data, err)
	}
}

func TestReserveReapsBeforeItRemoves(t *testing.T) {
	s := open(t)
	for i, c := range "ab" {
		putImage(t, s, byte(c), 100, 9-i)
	}
	users, reaped := someUsers("ab"), 0
	sp := &Space{Store: s, Limits: Limits{Quota: 200, LowWater: 200}}
	sp.Users = &users
	sp.Reap = func(context.Context) { users, reaped = "b", reaped+1 }
	for range 2 {
		lock, err := s.Lock(testContext(t), digest('f'), nil)
		if err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(sp.Reserve(testContext(t), lock, 100), lock.Release()); err != nil {
			t.Fatal(err)
		}
	}
	if held(t, s) != "b" || reaped != 1 {
		t.Errorf("left %q, reaped %d times, want once", held(t, s), reaped)
	}
}

func TestFreeAndTrim(t *testing.T) {
	s := open(t)
	for i, c := range "abcd" {
		putImage(t, s, byte(c), 100, 9-i)
	}
	lock, err := s.Lock(testContext(t), digest('f'), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer lock.Release()
	sp := &Space{Store: s, Users: someUsers("a")}
	if n, err := sp.Free(testContext(t), lock, 150); err != nil || n != 200 || held(t, s) != "ad" {
		t.Errorf("freed %d, %v, left %q", n, err, held(t, s))
	}
	sp.Limits = Limits{Quota: 150, LowWater: 150}
	if removed, err := sp.Trim(testContext(t)); err != nil || len(removed) != 1 || held(t, s) != "a" {
		t.Errorf("removed %v, %v", removed, err)
	}
	sp.Limits = Limits{Quota: 50, LowWater: 50}
	if removed, err := sp.Trim(testContext(t)); err != nil || len(removed) != 0 || held(t, s) != "a" {
		t.Errorf("removed %v, %v, although it is used", removed, err)
	}
	var none *Space
	if err := none.Reserve(testContext(t), lock, 1<<62); err != nil {
		t.Error(err)
	}
}

func TestKeeps(t *testing.T) {
	s := open(t)
	im := putImage(t, s, 'a', 100, 1)
	hour := time.Now().Add(time.Hour).Round(time.Second).UTC()
	past := Keep{Until: time.Now().Add(-time.Second)}
	if s.Kept(im) != nil {
		t.Error("kept without a word")
	}
	for _, k := range []struct {
		holder string
		Keep
	}{{"", past}, {"warm", Keep{Until: hour, Reason: "course"}}, {"container-x", Keep{Until: hour.Add(-time.Minute)}}} {
		if err := s.Keep(im.Digest(), k.holder, k.Keep); err != nil {
			t.Fatal(err)
		}
	}
	if k := s.Kept(im); k == nil || !k.Until.Equal(hour) || k.Reason != "course" {
		t.Errorf("%+v", k)
	}
	s.forgetKeeps(time.Now())
	if names := s.keepFiles(); len(names) != 2 {
		t.Errorf("%v", names)
	}
	if err := s.Keep(im.Digest(), "", Keep{}); err != nil {
		t.Fatal(err)
	}
	if k := s.Kept(im); k == nil || !k.Until.IsZero() {
		t.Errorf("%+v", k)
	}
	for _, holder := range []string{"", "warm", "container-x", "nobody"} {
		if err := s.Release(im.Digest(), holder); err != nil {
			t.Error(err)
		}
	}
	if k := s.Kept(im); k != nil {
		t.Errorf("%+v", k)
	}
	for _, holder := range []string{"../x", "a/b", "a b", "@"} {
		if err := s.Keep(im.Digest(), holder, Keep{}); fault.Of(err) != fault.Bug || err == nil {
			t.Errorf("holder %q: %v", holder, err)
		}
	}
	if err := os.WriteFile(filepath.Join(s.keepDir(), im.Key()), []byte("not JSON"), 0o644); err != nil {
		t.Fatal(err)
	}
	if k := s.Kept(im); k == nil || !k.Until.IsZero() {
		t.Errorf("a keep that cannot be read: %+v", k)
	}
}

// TestCollect: garbage, an older policy's image, a tree without an image, and
// what is not to go.
func TestCollect(t *testing.T) {
	s := open(t)
	putImage(t, s, 'a', 100, 48)
	putImage(t, s, 'b', 100, 1)
	putImage(t, s, 'c', 100, 48) // used
	putImage(t, s, 'd', 100, 48) // kept
	outdated := putImage(t, s, 'e', 100, 1)
	newer := putImage(t, s, 'f', 100, 48)
	for im, policy := range map[Image]string{outdated: ".p0", newer: ".p999"} {
		if err := os.Rename(im.Dir(), filepath.Join(s.imagesDir(), im.Digest().Hex()+policy)); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(s.Keep(digest('d'), "", Keep{}), s.Keep(digest('a'), "", Keep{Until: time.Now()})); err != nil {
		t.Fatal(err)
	}
	living, err := s.Lock(testContext(t), digest('9'), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer living.Release()
	if _, err := living.TempDir(os.Geteuid(), os.Getegid()); err != nil {
		t.Fatal(err)
	}
	for _, dir := range []string{
		filepath.Join(s.tmpDir(), Key(digest('8'))+".x"), filepath.Join(s.newDir(), Key(digest('7'))+".x"),
		filepath.Join(s.treesDir(), Key(digest('6')), "bin"), filepath.Join(s.treesDir(), Key(digest('b')), "bin"),
	} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	sp := &Space{Store: s, Users: someUsers("c")}
	collect := func(c Collection) string {
		removed, err := sp.Collect(testContext(t), c)
		if err != nil {
			t.Fatal(err)
		}
		var what []string
		for _, r := range removed {
			what = append(what, fmt.Sprintf("%s:%s", r.Reason, filepath.Base(r.Path)[:1]))
		}
		slices.Sort(what)
		return strings.Join(what, " ")
	}
	const all = "garbage:6 garbage:7 garbage:8 outdated:e unused:a"
	for _, dryRun := range []bool{true, true, false} {
		if got := collect(Collection{DryRun: dryRun, UnusedFor: 24 * time.Hour}); got != all {
			t.Errorf("dry run %v: %s; want %s", dryRun, got, all)
		}
	}
	if got := collect(Collection{}); got != "" {
		t.Errorf("again: %s", got)
	}
	if got := held(t, s); got != "bcd" {
		t.Errorf("left %s", got)
	}
	if _, err := os.Stat(filepath.Join(s.treesDir(), Key(digest('b')))); err != nil {
		t.Error(err)
	}
	sp.Limits = Limits{Quota: 150, LowWater: 150}
	if got := collect(Collection{}); got != "space:b" {
		t.Errorf("over the quota: %s", got)
	}
}

// TestKeepWhileItIsRemoved: a keep that is written between the look at the
// keeps and the removal holds.
func TestKeepWhileItIsRemoved(t *testing.T) {
	s := open(t)
	im := putImage(t, s, 'a', 100, 48)
	if err := os.MkdirAll(filepath.Join(im.Tree(), "bin"), 0o700); err != nil {
		t.Fatal(err)
	}
	s.step = func(step string) {
		if step == "set aside" {
			if err := s.Keep(im.Digest(), "warm", Keep{}); err != nil {
				t.Error(err)
			}
		}
	}
	sp := &Space{Store: s, Users: someUsers("")}
	if removed, err := sp.Collect(testContext(t), Collection{UnusedFor: time.Hour}); err != nil || len(removed) != 0 {
		t.Errorf("removed %v, %v", removed, err)
	}
	if _, err := os.Stat(filepath.Join(im.Tree(), "bin")); err != nil || held(t, s) != "a" {
		t.Errorf("gone: %v, %q", err, held(t, s))
	}
	checkImageKept(t, im)
	checkEmpty(t, s)
}

func checkImageKept(t *testing.T, im Image) {
	t.Helper()
	if _, err := im.Manifest(); err != nil {
		t.Error(err)
	}
}

// TestKeepRenewed: a keep that is renewed while it is found to be over holds.
func TestKeepRenewed(t *testing.T) {
	s := open(t)
	im := putImage(t, s, 'a', 100, 1)
	if err := s.Keep(im.Digest(), "", Keep{Until: time.Now().Add(-time.Second)}); err != nil {
		t.Fatal(err)
	}
	s.step = func(step string) {
		if step == "found a keep that is over" {
			if err := s.Keep(im.Digest(), "", Keep{Reason: "renewed"}); err != nil {
				t.Error(err)
			}
		}
	}
	s.forgetKeeps(time.Now())
	if k := s.Kept(im); k == nil || k.Reason != "renewed" {
		t.Errorf("%+v", k)
	}
	checkEmpty(t, s)
}
