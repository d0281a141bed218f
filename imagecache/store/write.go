package store

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
)

// WriteJSON replaces the file at path by value as indented JSON. Readers see
// the old file or the new one, never a part. The data is on disk before the
// name is, so the file is whole after a crash, too.
func WriteJSON(path string, mode os.FileMode, value any) error {
	return replaceJSON(filepath.Dir(path), "."+filepath.Base(path)+".*", path, mode, value)
}

// replaceJSON is WriteJSON by way of a file in dir, named as os.CreateTemp
// understands pattern. It is left there when the process is killed.
func replaceJSON(dir, pattern, path string, mode os.FileMode, value any) error {
	data, err := json.MarshalIndent(value, "", "  ")
	if err != nil {
		return err
	}
	f, err := os.CreateTemp(dir, pattern)
	if err != nil {
		return err
	}
	defer os.Remove(f.Name()) // fails once renamed, as it should
	if err := writeAll(f, append(data, '\n'), mode); err != nil {
		return err
	}
	if err := os.Rename(f.Name(), path); err != nil {
		return err
	}
	return syncDir(filepath.Dir(path))
}

// replaceTries is how often replaceSwept begins again when a sweeper took its
// file away before that got its name.
const replaceTries = 3

// replaceSwept is WriteJSON by way of a file in newDir that belongs to the
// image of that key, so that a crash leaves nothing that is not swept.
func replaceSwept(newDir, key, path string, mode os.FileMode, value any) (err error) {
	for range replaceTries {
		err = replaceJSON(newDir, key+".*", path, mode, value)
		if !errors.Is(err, os.ErrNotExist) {
			break
		}
	}
	return err
}

// writeAll writes data to f, sets its mode, syncs and closes it.
func writeAll(f *os.File, data []byte, mode os.FileMode) error {
	_, err := f.Write(data)
	if err == nil {
		err = f.Chmod(mode)
	}
	if err == nil {
		err = f.Sync()
	}
	if closeErr := f.Close(); err == nil {
		err = closeErr
	}
	return err
}

// syncDir makes the names in dir survive a crash.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}
