package metrics

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// lockEvery is how often a lock is tried.
const lockEvery = 5 * time.Millisecond

// Recent says whether Fold has written sums within d.
func Recent(dir string, d time.Duration) bool {
	st, err := os.Lstat(filepath.Join(dir, sumsName))
	return err == nil && time.Since(st.ModTime()) < d
}

// Fold adds up what is in the spool below dir and writes the text for
// Prometheus to textfile, "" for nowhere else than dir/berth.prom. With nothing
// to add it does nothing. One process at a time does it; the others wait for as
// long as ctx lets them.
func Fold(ctx context.Context, dir, textfile string) error {
	lock, err := os.OpenFile(filepath.Join(dir, lockName), os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW, 0o600)
	if errors.Is(err, fs.ErrNotExist) {
		return nil // nothing was ever counted
	}
	if err != nil {
		return err
	}
	defer lock.Close()
	if err := flock(ctx, lock); err != nil {
		return fmt.Errorf("lock the metrics: %w", err)
	}
	sums, err := Load(dir)
	if err != nil {
		return err
	}
	added, err := addParts(ctx, dir, sums)
	if err != nil || !added {
		return err
	}
	if textfile == "" {
		textfile = filepath.Join(dir, "berth.prom")
	}
	return replace(textfile, 0o644, sums.Text())
}

// Load reads the sums below dir; there are none at first. Sums that cannot be
// read, as after a power cut, begin again, which Prometheus takes for a restart.
func Load(dir string) (*Sums, error) {
	s := &Sums{}
	data, err := os.ReadFile(filepath.Join(dir, sumsName))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	if err == nil && json.Unmarshal(data, s) != nil {
		s = &Sums{}
	}
	maps.DeleteFunc(s.Accounts, func(_ string, a *Account) bool { return a == nil })
	maps.DeleteFunc(s.Phases, func(_ string, h *Histogram) bool { return h == nil })
	if s.Accounts == nil {
		s.Accounts = map[string]*Account{}
	}
	if s.Phases == nil {
		s.Phases = map[string]*Histogram{}
	}
	return s, nil
}

// addParts adds a part that a process which was killed has left, and what is in
// the spool now, and says whether there was anything.
func addParts(ctx context.Context, dir string, sums *Sums) (added bool, err error) {
	// In the sums already, or from before they began again.
	_ = os.Remove(partName(dir, sums.Folded))
	for range 2 {
		next := partName(dir, sums.Folded+1)
		if _, err := os.Lstat(next); errors.Is(err, fs.ErrNotExist) {
			if err := os.Rename(filepath.Join(dir, spoolName), next); errors.Is(err, fs.ErrNotExist) {
				return added, nil
			} else if err != nil {
				return added, err
			}
		}
		if err := addPart(ctx, sums, next); err != nil {
			return added, err
		}
		sums.Folded++
		data, err := json.Marshal(sums)
		if err != nil {
			return added, err
		}
		if err := replace(filepath.Join(dir, sumsName), 0o600, append(data, '\n')); err != nil {
			return added, err
		}
		added = true
		if err := os.Remove(next); err != nil {
			return added, err
		}
	}
	return added, nil
}

func partName(dir string, n int) string {
	return filepath.Join(dir, fmt.Sprintf("%s.%d", spoolName, n))
}

// addPart adds each line, once nobody writes to it any more.
func addPart(ctx context.Context, sums *Sums, name string) error {
	f, err := os.OpenFile(name, os.O_RDONLY|unix.O_NOFOLLOW, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := flock(ctx, f); err != nil {
		return fmt.Errorf("lock the spool of metrics: %w", err)
	}
	// What a power cut has left may be one long line.
	text, err := io.ReadAll(io.LimitReader(f, 2*maxSpool))
	for line := range bytes.Lines(text) {
		var e Event
		if len(bytes.TrimSpace(line)) > 0 && json.Unmarshal(line, &e) == nil {
			sums.add(e)
		}
	}
	return err
}

// flock takes an exclusive lock, which ends with f.
func flock(ctx context.Context, f *os.File) error {
	tick := time.NewTicker(lockEvery)
	defer tick.Stop()
	for {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if !errors.Is(err, unix.EWOULDBLOCK) {
			return os.NewSyscallError("flock", err)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// replace replaces a file so that readers see the old one or the new one,
// whole. The folder may be one that others write in, too (node_exporter's): a
// temporary file is a new one, whatever name is there.
func replace(name string, mode fs.FileMode, data []byte) error {
	f, err := os.CreateTemp(filepath.Dir(name), "."+strings.TrimSuffix(filepath.Base(name), filepath.Ext(name))+".*.tmp")
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	err = errors.Join(err, f.Chmod(mode), f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), name)
	}
	if err != nil {
		_ = os.Remove(f.Name())
	}
	return err
}
