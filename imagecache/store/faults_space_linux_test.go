package store

import (
	"context"
	"errors"
	"os"
	"slices"
	"testing"

	"github.com/berth-hpc/berth/testdata/faultfs"
)

// TestFaultsOfKeep interrupts the wish to keep an image.
func TestFaultsOfKeep(t *testing.T) {
	d := digest('a')
	keep := func(dir string) error {
		s, err := Open(dir)
		if err != nil {
			return err
		}
		return s.Keep(d, "me", Keep{Reason: "why"})
	}
	faultfs.Trial{
		Seeds:   seeds,
		Prepare: func(t testing.TB, dir string) { pulled(t, dir, d) },
		Do:      keep,
		Check: func(t testing.TB, dir string, err error) {
			checkBlame(t, err)
			checkKept(t, dir, d, err == nil)
			if err := keep(dir); err != nil {
				t.Errorf("the next: %v", err)
			}
			checkKept(t, dir, d, true)
			checkVisible(t, dir)
			checkClean(t, dir)
		},
	}.Run(t)
}

// checkKept wants d to be kept for its reason if it must be, and nothing else
// among the keeps.
func checkKept(t testing.TB, dir string, d Digest, must bool) {
	t.Helper()
	s, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	im, err := s.Get(d)
	if err != nil {
		t.Fatal(err)
	}
	k := s.Kept(im)
	if must != (k != nil) && must || k != nil && k.Reason != "why" {
		t.Errorf("kept: %+v", k)
	}
	entries, err := os.ReadDir(s.keepDir())
	if len(entries) > 1 || err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Errorf("left: %v, %v", entries, err)
	}
}

// TestFaultsOfSpace interrupts a pull that has to make room: two images go for
// one that comes. What is kept stays.
func TestFaultsOfSpace(t *testing.T) {
	kept, old, older, wanted := digest('a'), digest('b'), digest('c'), digest('d')
	pullInto := func(dir string) (err error) {
		s, err := Open(dir)
		if err != nil {
			return err
		}
		sp := &Space{Store: s, Users: Processes{}, Limits: Limits{Quota: 15000, LowWater: 11000}}
		l, err := s.Lock(context.Background(), wanted, nil)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, l.Release()) }()
		if _, err := s.Get(wanted); err == nil {
			return nil
		}
		if err := sp.Reserve(context.Background(), l, 6000); err != nil {
			return err
		}
		work, err := l.TempDir(os.Geteuid(), os.Getegid())
		if err != nil {
			return err
		}
		if err := stageAll(work, wanted, os.Geteuid()); err != nil {
			return siteError("convert", wanted.String(), err)
		}
		_, err = publishDir(s, work, wanted, os.Geteuid())
		return err
	}
	faultfs.Trial{
		Seeds: seeds,
		Prepare: func(t testing.TB, dir string) {
			s := pulled(t, dir, kept, old, older)
			if err := s.Keep(kept, "me", Keep{}); err != nil {
				t.Fatal(err)
			}
		},
		Do: pullInto,
		Check: func(t testing.TB, dir string, err error) {
			checkBlame(t, err)
			got := checkVisible(t, dir)
			if !slices.Contains(got, kept) || err == nil && !slices.Contains(got, wanted) {
				t.Errorf("the store has %v", got)
			}
			checkNoReservation(t, dir)
			if err := pullInto(dir); err != nil {
				t.Errorf("the next: %v", err)
			}
			got = checkVisible(t, dir)
			if !slices.Contains(got, kept) || !slices.Contains(got, wanted) || len(got) > 3 {
				t.Errorf("afterwards the store has %v", got)
			}
			checkClean(t, dir)
		},
	}.Run(t)
}

// checkNoReservation wants nobody to count on room that nobody needs.
func checkNoReservation(t testing.TB, dir string) {
	t.Helper()
	s, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	if reserved, pending := s.reservations(""); reserved != 0 || pending != 0 {
		t.Errorf("reserved: %d, of which %d to be written", reserved, pending)
	}
}
