package store

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// How a copy reads: in blocks, some ahead of what is being hashed and written,
// and not longer than copyStall without any.
const (
	copyBlock = 4 << 20
	copyAhead = 4
	copyStall = 30 * time.Second
)

// CopyTo writes the image's three files into dir, an empty folder of the
// caller's, for Publish. Each byte is read once: it is hashed on its way, and
// ErrDamaged says that the sum is not the record's. ErrUnusable is about the
// cluster's file system, any other error about dir's. progress hears of the
// bytes copied so far.
func (s *Source) CopyTo(ctx context.Context, dir string, progress func(done, total int64)) error {
	for name, data := range map[string][]byte{ConfigName: s.Manifest, RecordName: s.record} {
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o600); err != nil {
			return siteError("copy image", s.image.digest.String(), err)
		}
	}
	to, err := os.OpenFile(filepath.Join(dir, RootfsName), os.O_WRONLY|os.O_CREATE|os.O_EXCL|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return siteError("copy image", s.image.digest.String(), err)
	}
	got, err := s.copyRootfs(ctx, to, progress)
	err = s.checkSum(got, err)
	if cerr := to.Close(); err == nil {
		err = siteError("copy image", s.image.digest.String(), cerr)
	}
	return err
}

// copyRootfs returns the sum of what it copied.
func (s *Source) copyRootfs(ctx context.Context, to *os.File, progress func(done, total int64)) (string, error) {
	if err := reserve(to, s.Size()); err != nil {
		return "", siteError("copy image", s.image.digest.String(), err)
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	blocks, free := s.readAhead(ctx)
	sum, done := sha256.New(), int64(0)
	stall := time.NewTimer(copyStall)
	defer stall.Stop()
	for {
		select {
		case b := <-blocks:
			if b.err == io.EOF {
				return hex.EncodeToString(sum.Sum(nil)), nil
			}
			if b.err != nil {
				return "", unusable("read image", s.image.digest.String(), b.err)
			}
			sum.Write(b.data)
			if _, err := to.Write(b.data); err != nil {
				return "", siteError("copy image", s.image.digest.String(), err)
			}
			done += int64(len(b.data))
			progress(done, s.Size())
			free <- b.data[:cap(b.data)]
			stall.Reset(copyStall)
		case <-stall.C:
			return "", unusable("read image", s.image.digest.String(), fmt.Errorf("nothing for %s", copyStall))
		case <-ctx.Done():
			return "", context.Cause(ctx)
		}
	}
}

type block struct {
	data []byte
	err  error // io.EOF at the end
}

// readAhead reads the squashfs file until its end, an error, or ctx's end.
func (s *Source) readAhead(ctx context.Context) (<-chan block, chan<- []byte) {
	blocks, free := make(chan block), make(chan []byte, copyAhead)
	for range copyAhead {
		free <- make([]byte, copyBlock)
	}
	send := func(b block) bool {
		select {
		case blocks <- b:
			return b.err == nil
		case <-ctx.Done():
			return false
		}
	}
	_ = unix.Fadvise(int(s.Rootfs.Fd()), 0, 0, unix.FADV_SEQUENTIAL)
	go func() {
		for at := int64(0); ; {
			var buf []byte
			select {
			case buf = <-free:
			case <-ctx.Done():
				return
			}
			n, err := s.Rootfs.ReadAt(buf, at)
			at += int64(n)
			if n > 0 && !send(block{data: buf[:n]}) {
				return
			}
			if err != nil && !send(block{err: err}) {
				return
			}
		}
	}()
	return blocks, free
}

// reserve makes a copy fail before it starts where the disk has no room, and
// lie in few pieces where it has. File systems that cannot, need not.
func reserve(f *os.File, size int64) error {
	err := unix.Fallocate(int(f.Fd()), unix.FALLOC_FL_KEEP_SIZE, 0, size)
	if errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) {
		return os.NewSyscallError("fallocate", err)
	}
	return nil
}
