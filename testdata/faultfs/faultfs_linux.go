package faultfs

import (
	"fmt"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// An FS is one mounted file system. It may be used by any number of processes
// and goroutines at once.
type FS struct {
	dir    string
	server *fuse.Server

	mu    sync.Mutex
	live  tree // what everybody sees
	base  tree // what was on disk when ops began
	ops   []*Op
	dirty map[uint64]bool // inodes with unsynced bytes
	next  uint64          // inode
	fault Fault
	cut   bool
	full  bool
	lists map[uint64][]fuse.DirEntry // open folders, as they were
	files map[uint64]*handle         // open files
	open  uint64                     // the last handle of either
}

// Mount mounts an empty file system, whose root belongs to the caller, for the
// duration of a test. Where that can't be done, the test is skipped.
func Mount(t testing.TB) *FS {
	t.Helper()
	top, err := os.MkdirTemp("", "berth-faultfs-") // TempDir's are closed to other users
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.Remove(top) })
	if err := os.Chmod(top, 0o755); err != nil {
		t.Fatal(err)
	}
	f, err := New(top)
	if err != nil {
		t.Skip("cannot mount FUSE here: ", err)
	}
	t.Cleanup(func() {
		if err := f.Unmount(); err != nil {
			t.Error(err)
		}
	})
	return f
}

// New mounts an empty file system at dir. As root every user can reach it.
func New(dir string) (*FS, error) {
	root := newInode(rootID, attr{unix.S_IFDIR | 0o755, uint32(os.Geteuid()), uint32(os.Getegid())})
	f := &FS{dir: dir, live: tree{rootID: root}, next: rootID, dirty: map[uint64]bool{}}
	f.lists, f.files = map[uint64][]fuse.DirEntry{}, map[uint64]*handle{}
	f.Settle()
	isRoot := os.Geteuid() == 0
	server, err := fuse.NewServer(&requests{fuse.NewDefaultRawFileSystem(), f}, dir, &fuse.MountOptions{
		FsName: "faultfs", Name: "faultfs", DirectMount: isRoot, AllowOther: isRoot,
		Options: []string{"default_permissions"}, DisableReadDirPlus: true, DisableXAttrs: true,
	})
	if err != nil {
		return nil, fmt.Errorf("mount faultfs: %w", err)
	}
	f.server = server
	go server.Serve()
	if err := server.WaitMount(); err != nil {
		return nil, fmt.Errorf("mount faultfs: %w", err)
	}
	return f, nil
}

// Unmount takes the file system away, also from processes that still use it.
func (f *FS) Unmount() error {
	if err := f.server.Unmount(); err != nil {
		err = unix.Unmount(f.dir, unix.MNT_DETACH)
		return fmt.Errorf("unmount faultfs: still in use: %w", err)
	}
	return nil
}

// Dir returns where it is mounted.
func (f *FS) Dir() string { return f.dir }

// Plan makes fault the one that is to come. It counts from the last Settle.
func (f *FS) Plan(fault Fault) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.fault = fault
}

// Heal ends what a fault began: the power is back, the disk has room. After a
// power cut the file system is as it was before; what a disk would hold, Disk
// says.
func (f *FS) Heal() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.fault, f.cut, f.full = Fault{}, false, false
}

// Settle takes all that is there to be on disk, and begins to count anew.
func (f *FS) Settle() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.base, f.ops = f.live.clone(), nil
	clear(f.dirty)
}

// Reset takes back all that happened since the last Settle. Nobody may have a
// file open.
func (f *FS) Reset() {
	f.Heal()
	f.mu.Lock()
	defer f.mu.Unlock()
	f.live, f.ops = f.base.clone(), nil
	clear(f.dirty)
}

// Ops returns the operations since the last Settle.
func (f *FS) Ops() []Op {
	f.mu.Lock()
	defer f.mu.Unlock()
	ops := make([]Op, len(f.ops))
	for i, o := range f.ops {
		ops[i] = *o
	}
	return ops
}

// Disk writes what a disk may hold after the first n operations to dir, which
// must not exist. Owners are kept if root asks.
func (f *FS) Disk(n int, s Survival, dir string) error {
	l := layout{tree: f.survivor(n, s), files: map[uint64]string{}}
	if err := l.folder(rootID, dir, nil); err != nil {
		return fmt.Errorf("lay out a disk: %w", err)
	}
	return nil
}

func (f *FS) survivor(n int, s Survival) tree {
	f.mu.Lock()
	base, ops := f.base, f.ops[:min(n, len(f.ops))]
	f.mu.Unlock() // neither changes any more, but for its end
	return after(base, ops).survive(s)
}

// timeout is how long the kernel may keep answers. After a power cut nothing
// may be answered from memory.
const timeout = time.Duration(0)
