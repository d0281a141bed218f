package faultfs

import (
	"maps"
	"slices"
	"syscall"

	"github.com/hanwen/go-fuse/v2/fuse"
)

// requests answers the kernel. What it does not know it refuses.
type requests struct {
	fuse.RawFileSystem
	*FS
}

// String implements fuse.RawFileSystem.
func (*requests) String() string { return "faultfs" }

// node returns an inode, or why there is none. f.mu is held.
func (f *FS) node(id uint64) (*inode, fuse.Status) {
	if f.cut {
		return nil, fuse.EIO
	}
	n := f.live[id]
	if n == nil {
		return nil, fuse.ENOENT
	}
	return n, fuse.OK
}

// child looks up name. f.mu is held.
func (f *FS) child(dir uint64, name string) (*inode, fuse.Status) {
	d, status := f.node(dir)
	if !status.Ok() {
		return nil, status
	}
	id, ok := d.names[name]
	if !ok {
		return nil, fuse.ENOENT
	}
	return f.node(id)
}

func (n *inode) fill(a *fuse.Attr) {
	*a = fuse.Attr{Ino: n.id, Size: uint64(len(n.data)), Blocks: uint64(len(n.data)+511) / 512, Mode: n.attr.mode, Nlink: n.nlink, Blksize: 4096}
	a.Owner = fuse.Owner{Uid: n.attr.uid, Gid: n.attr.gid}
	if n.target != "" {
		a.Size = uint64(len(n.target))
	}
	a.SetTimes(&n.mtime, &n.mtime, &n.mtime)
}

func (n *inode) entry(out *fuse.EntryOut) {
	out.NodeId = n.id
	out.SetEntryTimeout(timeout)
	out.SetAttrTimeout(timeout)
	n.fill(&out.Attr)
}

// Lookup implements fuse.RawFileSystem.
func (r *requests) Lookup(_ <-chan struct{}, h *fuse.InHeader, name string, out *fuse.EntryOut) fuse.Status {
	r.mu.Lock()
	defer r.mu.Unlock()
	n, status := r.child(h.NodeId, name)
	if status.Ok() {
		n.entry(out)
	}
	return status
}

// Forget implements fuse.RawFileSystem. Inodes live as long as the mount.
func (*requests) Forget(uint64, uint64) {}

// GetAttr implements fuse.RawFileSystem.
func (r *requests) GetAttr(_ <-chan struct{}, in *fuse.GetAttrIn, out *fuse.AttrOut) fuse.Status {
	r.mu.Lock()
	defer r.mu.Unlock()
	n, status := r.node(in.NodeId)
	if status.Ok() {
		n.fill(&out.Attr)
	}
	return status
}

// Readlink implements fuse.RawFileSystem.
func (r *requests) Readlink(_ <-chan struct{}, h *fuse.InHeader) ([]byte, fuse.Status) {
	r.mu.Lock()
	defer r.mu.Unlock()
	n, status := r.node(h.NodeId)
	if !status.Ok() {
		return nil, status
	}
	return []byte(n.target), fuse.OK
}

// Read implements fuse.RawFileSystem.
func (r *requests) Read(_ <-chan struct{}, in *fuse.ReadIn, buf []byte) (fuse.ReadResult, fuse.Status) {
	r.mu.Lock()
	defer r.mu.Unlock()
	n, status := r.node(in.NodeId)
	if !status.Ok() {
		return nil, status
	}
	from := min(in.Offset, uint64(len(n.data)))
	return fuse.ReadResultData(buf[:copy(buf, n.data[from:])]), fuse.OK
}

// OpenDir implements fuse.RawFileSystem.
func (r *requests) OpenDir(_ <-chan struct{}, in *fuse.OpenIn, out *fuse.OpenOut) fuse.Status {
	r.mu.Lock()
	defer r.mu.Unlock()
	_, status := r.node(in.NodeId)
	r.open++
	out.Fh = r.open
	return status
}

// ReadDir implements fuse.RawFileSystem.
func (r *requests) ReadDir(_ <-chan struct{}, in *fuse.ReadIn, out *fuse.DirEntryList) fuse.Status {
	r.mu.Lock()
	defer r.mu.Unlock()
	n, status := r.node(in.NodeId)
	if !status.Ok() {
		return status
	}
	if in.Offset == 0 {
		r.lists[in.Fh] = r.list(n)
	}
	for i, e := range r.lists[in.Fh] {
		e.Off = uint64(i + 1)
		if e.Off > in.Offset && !out.AddDirEntry(e) {
			break
		}
	}
	return fuse.OK
}

func (f *FS) list(n *inode) []fuse.DirEntry {
	list := []fuse.DirEntry{{Name: ".", Ino: n.id, Mode: syscall.S_IFDIR}, {Name: "..", Ino: max(n.up, rootID), Mode: syscall.S_IFDIR}}
	for _, name := range slices.Sorted(maps.Keys(n.names)) {
		child := f.live[n.names[name]]
		list = append(list, fuse.DirEntry{Name: name, Ino: child.id, Mode: child.attr.mode})
	}
	return list
}

// ReleaseDir implements fuse.RawFileSystem.
func (r *requests) ReleaseDir(in *fuse.ReleaseIn) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.lists, in.Fh)
}

// Space of the file system: blocks of 4096 bytes, and files.
const (
	blockSize  = 4096
	blockCount = 1 << 28
)

// StatFs implements fuse.RawFileSystem.
func (r *requests) StatFs(_ <-chan struct{}, _ *fuse.InHeader, out *fuse.StatfsOut) fuse.Status {
	r.mu.Lock()
	defer r.mu.Unlock()
	*out = fuse.StatfsOut{Bsize: blockSize, Frsize: blockSize, Blocks: blockCount, Files: blockCount, Ffree: blockCount, NameLen: 255}
	if !r.full {
		out.Bfree, out.Bavail = blockCount, blockCount
	}
	return fuse.OK
}
