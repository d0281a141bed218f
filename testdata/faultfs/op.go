package faultfs

import (
	"fmt"
	"syscall"
)

// A Kind is what an operation does, named as the system call is.
type Kind string

// The operations that have numbers.
const (
	Create    Kind = "create"
	Mkdir     Kind = "mkdir"
	Mknod     Kind = "mknod"
	Symlink   Kind = "symlink"
	Link      Kind = "link"
	Unlink    Kind = "unlink"
	Rmdir     Kind = "rmdir"
	Rename    Kind = "rename"
	Write     Kind = "write"
	Truncate  Kind = "truncate"
	Fallocate Kind = "fallocate"
	Chmod     Kind = "chmod"
	Chown     Kind = "chown"
	Utimes    Kind = "utimes"
	Fsync     Kind = "fsync"
	Fdatasync Kind = "fdatasync"
	FsyncDir  Kind = "fsyncdir"
	// Close is the end of a descriptor through which something was written
	// that is not synced. Network file systems may fail there.
	Close Kind = "close"
)

// An Op is one operation, as it was done or, with Err, refused.
type Op struct {
	N    int // its number, from 1
	Kind Kind
	Path string // from the root of the file system, without a leading slash
	To   string // the new name, of Rename and Link
	Size int64  // bytes, of Write
	PID  int    // the thread that asked
	Err  syscall.Errno

	change change
}

// String returns the operation in one line: "7 rename a -> b".
func (o Op) String() string {
	s := fmt.Sprintf("%d %s %s", o.N, o.Kind, o.Path)
	if o.To != "" {
		s += " -> " + o.To
	}
	if o.Kind == Write {
		s += fmt.Sprintf(" (%d bytes)", o.Size)
	}
	if o.Err != 0 {
		s += ": " + o.Err.Error()
	}
	return s
}

// needsSpace reports whether a full disk refuses o.
func (o *Op) needsSpace(dirty bool) bool {
	switch o.Kind {
	case Create, Mkdir, Mknod, Symlink, Link, Rename, Write, Fallocate:
		return true
	case Fsync, Fdatasync, Close:
		return dirty // with delayed allocation, or on NFS
	}
	return false
}

// isSync reports whether o was to bring ino's data to disk.
func (o *Op) isSync() bool { return o.Kind == Fsync || o.Kind == Fdatasync || o.Kind == Close }

// A change is what an operation does to a tree.
type change struct {
	ino   uint64 // whose bytes or attributes change
	born  *inode // a new inode, as it begins
	names []nameChange
	data  *dataChange
	attr  *attr
}

// A nameChange gives or takes a name in one folder.
type nameChange struct {
	dir  uint64
	name string
	ino  uint64 // 0 takes the name away
}

// A dataChange writes bytes at off, or sets the size.
type dataChange struct {
	off   int64
	bytes []byte
	size  int64 // -1 with bytes
}

type attr struct {
	mode     uint32 // type and permissions
	uid, gid uint32
}
