package prolog

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/berth-hpc/berth/imagecache/store"
	"github.com/berth-hpc/berth/launcher"
)

// damage changes a published file, as a disk might.
func damage(t *testing.T, path string, change func([]byte) []byte) {
	t.Helper()
	data, err := os.ReadFile(path)
	must(t, err)
	must(t, os.WriteFile(path, change(data), 0o444)) // the same inode
}

func nonsense(data []byte) []byte {
	return bytes.Repeat([]byte("no squashfs"), len(data)/11+1)[:len(data)]
}

// spoilFirstBlock makes the first block of data one that cannot be unpacked.
func spoilFirstBlock(data []byte) []byte {
	i := bytes.Index(data, []byte{0x28, 0xb5, 0x2f, 0xfd}) // how zstd's frames begin
	data[i] ^= 1
	return data
}

// readError reads the file of a mounted image to the end.
func (n *node) readError(mount string) error {
	n.t.Helper()
	m, err := launcher.OpenMounts(n.t.Context(), n.cfg.RunDir)
	must(n.t, err)
	defer m.Close()
	clone, err := m.CloneImage(mount)
	must(n.t, err)
	defer clone.Close()
	fd, err := unix.Openat(int(clone.Fd()), "hello", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	must(n.t, err)
	f := os.NewFile(uintptr(fd), "hello")
	defer f.Close()
	_, err = io.Copy(io.Discard, f)
	return err
}

// A file in the store that is not mountable, or that the kernel has met as
// damaged, is pulled again for the job that wants it.
func TestDamagedImageIsReplaced(t *testing.T) {
	if !privateMounts(t) {
		return
	}
	n, reg := newNode(t), newRegistry(t)
	image, digest := reg.push(t, "x", string(bytes.Repeat([]byte("content "), 10000)))
	r := request(1, image, digest)
	n.prepare(r)
	ready := n.ready(r)
	before := n.read(ready.Mount, "hello")
	n.cleanup(1)

	damage(t, ready.Squashfs(), nonsense)
	r = request(2, image, digest)
	n.prepare(r)
	if got := n.read(n.ready(r).Mount, "hello"); got != before {
		t.Error("after nonsense: other content")
	}
	n.cleanup(2)

	damage(t, ready.Squashfs(), spoilFirstBlock)
	r = request(3, image, digest)
	n.prepare(r)
	if err := n.readError(n.ready(r).Mount); !errors.Is(err, unix.EIO) {
		t.Fatalf("a damaged block: %v", err)
	}
	// Job 3 still has the image: its mount is the damaged one.
	r = request(4, image, digest)
	n.prepare(r)
	if got := n.read(n.ready(r).Mount, "hello"); got != before {
		t.Errorf("after a read error: %d bytes, want %d; %s", len(got), len(before), n.log(r))
	}
	n.cleanup(3)
	n.cleanup(4)
	n.checkClean()
}

// Without an error of the kernel's nobody reads the whole file.
func TestSuspectOnlyAfterAnError(t *testing.T) {
	for _, tc := range []struct {
		record string
		want   time.Duration
		ok     bool
	}{
		{"3,1234,5678,-;SQUASHFS error: Failed to read block 0x60: -5\n", 5678 * time.Microsecond, true},
		{"3,1234,5678,-;EXT4-fs error\n", 0, false},
		{"6,1;SQUASHFS error: x\n", 0, false},
		{"", 0, false},
	} {
		if got, ok := squashfsError(tc.record); ok != tc.ok || ok && got != tc.want {
			t.Errorf("%q: %v, %v", tc.record, got, ok)
		}
	}
}

// Verify finds a single bit, which squashfs itself would not.
func TestVerify(t *testing.T) {
	if !privateMounts(t) {
		return
	}
	n, reg := newNode(t), newRegistry(t)
	image, digest := reg.push(t, "x", "content")
	r := request(1, image, digest)
	n.prepare(r)
	ready := n.ready(r)
	d, err := store.ParseDigest(ready.Digest)
	must(t, err)
	st, err := store.OpenExisting(filepath.Dir(filepath.Dir(filepath.Dir(ready.Dir))))
	must(t, err)
	im, err := st.Get(d)
	must(t, err)
	if err := im.Verify(t.Context()); err != nil {
		t.Error(err)
	}
	damage(t, ready.Squashfs(), func(data []byte) []byte { data[len(data)-1] ^= 4; return data })
	if err := im.Verify(t.Context()); !errors.Is(err, store.ErrDamaged) {
		t.Errorf("one bit is another: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := im.Verify(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}
