package faultfs

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"syscall"

	"golang.org/x/sys/unix"
)

// A layout writes a tree to a real folder.
type layout struct {
	tree  tree
	files map[uint64]string // where each file was written, for its other names
}

// write makes at, which must not be there, from the folder ino.
func (l *layout) folder(ino uint64, at string, above []uint64) error {
	n := l.tree[ino]
	if err := os.Mkdir(at, 0o700); err != nil {
		return err
	}
	above = append(above, ino)
	for name, child := range n.names {
		if slices.Contains(above, child) {
			continue // a folder that survived below itself
		}
		if err := l.entry(child, filepath.Join(at, name), above); err != nil {
			return err
		}
	}
	return setAttr(at, n.attr)
}

func (l *layout) entry(ino uint64, at string, above []uint64) error {
	n := l.tree[ino]
	if n.isDir() {
		return l.folder(ino, at, above)
	}
	// The halves of a rename that came to disk are no second name: what fsck
	// makes of them are two files.
	if first := l.files[ino]; first != "" && n.linked {
		return os.Link(first, at)
	}
	l.files[ino] = at
	switch n.attr.mode & syscall.S_IFMT {
	case syscall.S_IFLNK:
		return errors.Join(os.Symlink(n.target, at), chown(at, n.attr))
	case syscall.S_IFREG:
		return errors.Join(os.WriteFile(at, n.data, 0o600), setAttr(at, n.attr))
	default:
		return errors.Join(unix.Mknod(at, n.attr.mode, 0), setAttr(at, n.attr))
	}
}

// sum is the same for two trees that a layout writes in the same way.
func (t tree) sum() (sum [sha256.Size]byte) {
	h := sha256.New()
	t.print(h, rootID, "/", nil, map[uint64]string{})
	h.Sum(sum[:0])
	return sum
}

func (t tree) print(w io.Writer, ino uint64, at string, above []uint64, files map[uint64]string) {
	n := t[ino]
	fmt.Fprintf(w, "%q %o %d %d %q %q %d\n", at, n.attr.mode, n.attr.uid, n.attr.gid, n.target, files[ino], len(n.data))
	if !n.isDir() {
		if n.linked && files[ino] == "" {
			files[ino] = at
		}
		_, _ = w.Write(n.data)
		return
	}
	above = append(above, ino)
	for _, name := range slices.Sorted(maps.Keys(n.names)) {
		if child := n.names[name]; !slices.Contains(above, child) {
			t.print(w, child, filepath.Join(at, name), above, files)
		}
	}
}

func setAttr(at string, a attr) error {
	return errors.Join(chown(at, a), unix.Chmod(at, a.mode&0o7777))
}

// chown needs root, and without root all files are ours.
func chown(at string, a attr) error {
	if os.Geteuid() != 0 {
		return nil
	}
	return os.Lchown(at, int(a.uid), int(a.gid))
}
