package store

import (
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// A Keep says that an image stays in the store although nobody uses it.
type Keep struct {
	Until  time.Time `json:"until,omitzero"` // zero for ever
	Reason string    `json:"reason,omitempty"`
}

func (k Keep) over(now time.Time) bool { return !k.Until.IsZero() && !now.Before(k.Until) }

// outlasts says that k holds longer than other.
func (k Keep) outlasts(other Keep) bool {
	return k.Until.IsZero() || !other.Until.IsZero() && k.Until.After(other.Until)
}

// Keep keeps im on behalf of holder until k says. Each holder, a word of
// letters, digits, "-", "_" and ".", or "" for the store's owner by hand, keeps
// for itself. An image may be kept before it is there.
func (s *Store) Keep(d Digest, holder string, k Keep) error {
	path, err := s.keepPath(Key(d), holder)
	if err != nil {
		return err
	}
	if err := makeFolder(s.keepDir(), 0o755); err != nil {
		return siteError("keep image", d.String(), err)
	}
	return siteError("keep image", d.String(), replaceSwept(s.newDir(), Key(d), path, 0o644, k))
}

// Release ends what holder keeps of d. It is no error if that is nothing.
func (s *Store) Release(d Digest, holder string) error {
	path, err := s.keepPath(Key(d), holder)
	if err != nil {
		return err
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return siteError("release image", d.String(), err)
	}
	return nil
}

// Kept returns the keep of im that holds longest, nil for none.
func (s *Store) Kept(im Image) *Keep { return s.keeps(time.Now())[im.Key()] }

// keeps returns what is kept, by the images' keys. A file that cannot be read
// keeps for ever: whoever wrote it meant something.
func (s *Store) keeps(now time.Time) map[string]*Keep {
	kept := map[string]*Keep{}
	for _, name := range s.keepFiles() {
		var k Keep
		err := readJSON(filepath.Join(s.keepDir(), name), &k)
		if errors.Is(err, os.ErrNotExist) || err == nil && k.over(now) {
			continue
		}
		if err != nil {
			k = Keep{Reason: "unreadable: " + name}
		}
		key, _, _ := strings.Cut(name, "@")
		if had := kept[key]; had == nil || k.outlasts(*had) {
			kept[key] = &k
		}
	}
	return kept
}

// forgetKeeps removes the keeps that are over. One that is renewed just now is
// given back, unless there is a newer one.
func (s *Store) forgetKeeps(now time.Time) {
	isOver := func(path string) bool {
		var k Keep
		return readJSON(path, &k) == nil && k.over(now)
	}
	for _, name := range s.keepFiles() {
		path := filepath.Join(s.keepDir(), name)
		if !isOver(path) {
			continue
		}
		key, _, _ := strings.Cut(name, "@")
		aside := filepath.Join(s.newDir(), key+"."+rand.Text())
		s.did("found a keep that is over")
		if os.Rename(path, aside) == nil && !isOver(aside) {
			_ = os.Link(aside, path)
		}
		_ = os.Remove(aside)
	}
}

// keepFiles lists the names of all keeps, without files that are being written.
func (s *Store) keepFiles() []string {
	entries, _ := os.ReadDir(s.keepDir())
	var names []string
	for _, e := range entries {
		if !strings.HasPrefix(e.Name(), ".") {
			names = append(names, e.Name())
		}
	}
	return names
}

func (s *Store) keepPath(key, holder string) (string, error) {
	if strings.Trim(holder, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.") != "" {
		return "", bugError("keep image", key, "bad name of a holder: %q", holder)
	}
	if holder != "" {
		key = fmt.Sprintf("%s@%s", key, holder)
	}
	return filepath.Join(s.keepDir(), key), nil
}

// Holders names those besides the owner by hand who keep im.
func (s *Store) Holders(im Image) (holders []string) {
	for _, name := range s.keepFiles() {
		key, holder, _ := strings.Cut(name, "@")
		var k Keep
		err := readJSON(filepath.Join(s.keepDir(), name), &k)
		if key == im.Key() && holder != "" && (err != nil || !k.over(time.Now())) {
			holders = append(holders, holder)
		}
	}
	return holders
}
