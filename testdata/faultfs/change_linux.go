package faultfs

import (
	"slices"
	"syscall"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// make gives birth to an inode under name in the folder h.
func (r *requests) make(kind Kind, h *fuse.InHeader, name string, mode uint32, target string) (*inode, fuse.Status) {
	if _, status := r.child(h.NodeId, name); status != fuse.ENOENT {
		return nil, orExists(status)
	}
	n := newInode(r.next+1, attr{mode, h.Uid, h.Gid})
	n.target = target
	if n.isDir() {
		n.nlink = 2
	}
	status := r.do(h, Op{Kind: kind, Path: r.below(h.NodeId, name), change: change{
		born: n, names: []nameChange{{h.NodeId, name, n.id}},
	}})
	if !status.Ok() {
		return nil, status
	}
	r.next++
	return r.live[n.id], fuse.OK
}

// orExists turns a look-up that should have found nothing into an error.
func orExists(status fuse.Status) fuse.Status {
	if status.Ok() {
		return fuse.Status(syscall.EEXIST)
	}
	return status
}

func (r *requests) do(h *fuse.InHeader, o Op) fuse.Status {
	o.PID = int(h.Pid)
	return fuse.Status(r.step(o))
}

func (r *requests) below(dir uint64, name string) string {
	if p := r.live.path(dir); p != "" {
		return p + "/" + name
	}
	return name
}

// Create implements fuse.RawFileSystem.
func (r *requests) Create(_ <-chan struct{}, in *fuse.CreateIn, name string, out *fuse.CreateOut) fuse.Status {
	r.mu.Lock()
	defer r.mu.Unlock()
	n, status := r.make(Create, &in.InHeader, name, syscall.S_IFREG|in.Mode&0o7777, "")
	if status.Ok() {
		n.entry(&out.EntryOut)
		out.Fh = r.opened(n, in.Flags)
	}
	return status
}

// A handle is one open(2) of a file.
type handle struct {
	writes bool
	told   int // up to which failure to sync
}

func (f *FS) opened(n *inode, flags uint32) uint64 {
	f.open++
	f.files[f.open] = &handle{writes: flags&syscall.O_ACCMODE != syscall.O_RDONLY, told: n.failed.n}
	return f.open
}

// Open implements fuse.RawFileSystem.
func (r *requests) Open(_ <-chan struct{}, in *fuse.OpenIn, out *fuse.OpenOut) fuse.Status {
	r.mu.Lock()
	defer r.mu.Unlock()
	n, status := r.node(in.NodeId)
	if status.Ok() && in.Flags&syscall.O_TRUNC != 0 {
		status = r.resize(&in.InHeader, Truncate, 0)
	}
	if status.Ok() {
		out.Fh = r.opened(n, in.Flags)
	}
	return status
}

func (r *requests) resize(h *fuse.InHeader, kind Kind, size int64) fuse.Status {
	return r.do(h, Op{Kind: kind, Path: r.live.path(h.NodeId), change: change{ino: h.NodeId, data: &dataChange{size: size}}})
}

// Mknod implements fuse.RawFileSystem.
func (r *requests) Mknod(_ <-chan struct{}, in *fuse.MknodIn, name string, out *fuse.EntryOut) fuse.Status {
	r.mu.Lock()
	defer r.mu.Unlock()
	if t := in.Mode & syscall.S_IFMT; t == syscall.S_IFCHR || t == syscall.S_IFBLK {
		return fuse.EPERM
	}
	n, status := r.make(Mknod, &in.InHeader, name, in.Mode, "")
	if status.Ok() {
		n.entry(out)
	}
	return status
}

// Mkdir implements fuse.RawFileSystem.
func (r *requests) Mkdir(_ <-chan struct{}, in *fuse.MkdirIn, name string, out *fuse.EntryOut) fuse.Status {
	r.mu.Lock()
	defer r.mu.Unlock()
	n, status := r.make(Mkdir, &in.InHeader, name, syscall.S_IFDIR|in.Mode&0o7777, "")
	if status.Ok() {
		n.entry(out)
	}
	return status
}

// Symlink implements fuse.RawFileSystem.
func (r *requests) Symlink(_ <-chan struct{}, h *fuse.InHeader, target, name string, out *fuse.EntryOut) fuse.Status {
	r.mu.Lock()
	defer r.mu.Unlock()
	n, status := r.make(Symlink, h, name, syscall.S_IFLNK|0o777, target)
	if status.Ok() {
		n.entry(out)
	}
	return status
}

// Link implements fuse.RawFileSystem.
func (r *requests) Link(_ <-chan struct{}, in *fuse.LinkIn, name string, out *fuse.EntryOut) fuse.Status {
	r.mu.Lock()
	defer r.mu.Unlock()
	if _, status := r.child(in.NodeId, name); status != fuse.ENOENT {
		return orExists(status)
	}
	n, status := r.node(in.Oldnodeid)
	if !status.Ok() {
		return status
	}
	status = r.do(&in.InHeader, Op{Kind: Link, Path: r.live.path(n.id), To: r.below(in.NodeId, name), change: change{
		names: []nameChange{{in.NodeId, name, n.id}},
	}})
	if status.Ok() {
		n.nlink, n.linked = n.nlink+1, true
		n.entry(out)
	}
	return status
}

// Unlink implements fuse.RawFileSystem.
func (r *requests) Unlink(_ <-chan struct{}, h *fuse.InHeader, name string) fuse.Status {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.remove(Unlink, h, name)
}

// Rmdir implements fuse.RawFileSystem.
func (r *requests) Rmdir(_ <-chan struct{}, h *fuse.InHeader, name string) fuse.Status {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.remove(Rmdir, h, name)
}

func (r *requests) remove(kind Kind, h *fuse.InHeader, name string) fuse.Status {
	n, status := r.child(h.NodeId, name)
	switch {
	case !status.Ok():
		return status
	case len(n.names) > 0:
		return fuse.Status(syscall.ENOTEMPTY)
	}
	status = r.do(h, Op{Kind: kind, Path: r.below(h.NodeId, name), change: change{names: []nameChange{{h.NodeId, name, 0}}}})
	if status.Ok() {
		n.unlinked()
	}
	return status
}

func (n *inode) unlinked() {
	if n.nlink--; n.isDir() {
		n.nlink = 0
	}
}

// Rename implements fuse.RawFileSystem.
func (r *requests) Rename(_ <-chan struct{}, in *fuse.RenameIn, from, to string) fuse.Status {
	r.mu.Lock()
	defer r.mu.Unlock()
	n, status := r.child(in.NodeId, from)
	if !status.Ok() {
		return status
	}
	over, status := r.child(in.Newdir, to)
	if status != fuse.OK && status != fuse.ENOENT {
		return status
	}
	names := []nameChange{{in.NodeId, from, 0}, {in.Newdir, to, n.id}}
	switch {
	case in.Flags == unix.RENAME_EXCHANGE && over != nil:
		names[0].ino = over.id
	case in.Flags == unix.RENAME_EXCHANGE:
		return fuse.ENOENT
	case in.Flags == unix.RENAME_NOREPLACE && over != nil:
		return fuse.Status(syscall.EEXIST)
	case in.Flags&^unix.RENAME_NOREPLACE != 0:
		return fuse.EINVAL
	case over == n:
		return fuse.OK
	case over != nil && len(over.names) > 0:
		return fuse.Status(syscall.ENOTEMPTY)
	}
	status = r.do(&in.InHeader, Op{
		Kind: Rename, Path: r.below(in.NodeId, from), To: r.below(in.Newdir, to), change: change{names: names},
	})
	if status.Ok() && over != nil && in.Flags != unix.RENAME_EXCHANGE {
		over.unlinked()
	}
	return status
}

// Write implements fuse.RawFileSystem.
func (r *requests) Write(_ <-chan struct{}, in *fuse.WriteIn, data []byte) (uint32, fuse.Status) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if _, status := r.node(in.NodeId); !status.Ok() {
		return 0, status
	}
	status := r.do(&in.InHeader, Op{Kind: Write, Path: r.live.path(in.NodeId), Size: int64(len(data)), change: change{
		ino: in.NodeId, data: &dataChange{off: int64(in.Offset), bytes: slices.Clone(data), size: -1},
	}})
	if !status.Ok() {
		return 0, status
	}
	return uint32(len(data)), fuse.OK
}

// Fallocate implements fuse.RawFileSystem.
func (r *requests) Fallocate(_ <-chan struct{}, in *fuse.FallocateIn) fuse.Status {
	r.mu.Lock()
	defer r.mu.Unlock()
	n, status := r.node(in.NodeId)
	switch {
	case !status.Ok():
		return status
	case in.Mode&^unix.FALLOC_FL_KEEP_SIZE != 0:
		return fuse.Status(syscall.EOPNOTSUPP)
	}
	size := int64(len(n.data))
	if in.Mode&unix.FALLOC_FL_KEEP_SIZE == 0 {
		size = max(size, int64(in.Offset+in.Length))
	}
	return r.resize(&in.InHeader, Fallocate, size)
}

// SetAttr implements fuse.RawFileSystem. The kernel asks for one thing at a
// time, but for times, which come along with a size.
func (r *requests) SetAttr(_ <-chan struct{}, in *fuse.SetAttrIn, out *fuse.AttrOut) fuse.Status {
	r.mu.Lock()
	defer r.mu.Unlock()
	n, status := r.node(in.NodeId)
	if !status.Ok() {
		return status
	}
	if status = r.setAttr(n, in); status.Ok() {
		n.fill(&out.Attr)
	}
	return status
}

func (r *requests) setAttr(n *inode, in *fuse.SetAttrIn) fuse.Status {
	if size, ok := in.GetSize(); ok {
		return r.resize(&in.InHeader, Truncate, int64(size))
	}
	kind, a := Utimes, n.attr
	if mode, ok := in.GetMode(); ok {
		kind, a.mode = Chmod, a.mode&syscall.S_IFMT|mode&0o7777
	}
	if uid, ok := in.GetUID(); ok {
		kind, a.uid = Chown, uid
	}
	if gid, ok := in.GetGID(); ok {
		kind, a.gid = Chown, gid
	}
	status := r.do(&in.InHeader, Op{Kind: kind, Path: r.live.path(n.id), change: change{ino: n.id, attr: &a}})
	if mtime, ok := in.GetMTime(); ok && status.Ok() {
		n.mtime = mtime
	}
	return status
}

// Flush implements fuse.RawFileSystem: somebody closes a descriptor.
func (r *requests) Flush(_ <-chan struct{}, in *fuse.FlushIn) fuse.Status {
	r.mu.Lock()
	defer r.mu.Unlock()
	if _, status := r.node(in.NodeId); !status.Ok() || !r.files[in.Fh].writes || !r.dirty[in.NodeId] {
		return status
	}
	return r.sync(&in.InHeader, Close, in.Fh)
}

// sync syncs an inode, or says that an earlier one failed if that is news to
// whoever has the handle.
func (r *requests) sync(h *fuse.InHeader, kind Kind, fh uint64) fuse.Status {
	n, status := r.node(h.NodeId)
	if !status.Ok() {
		return status
	}
	status = r.do(h, Op{Kind: kind, Path: r.live.path(n.id), change: change{ino: n.id}})
	if !status.Ok() {
		n.failed = failure{n.failed.n + 1, syscall.Errno(status)}
	}
	if file := r.files[fh]; file != nil && file.told < n.failed.n {
		file.told = n.failed.n
		return fuse.Status(n.failed.err)
	}
	return status
}

// Release implements fuse.RawFileSystem.
func (r *requests) Release(_ <-chan struct{}, in *fuse.ReleaseIn) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.files, in.Fh)
}

// Fsync implements fuse.RawFileSystem.
func (r *requests) Fsync(_ <-chan struct{}, in *fuse.FsyncIn) fuse.Status {
	r.mu.Lock()
	defer r.mu.Unlock()
	kind := Fsync
	if in.FsyncFlags&1 != 0 {
		kind = Fdatasync
	}
	return r.sync(&in.InHeader, kind, in.Fh)
}

// FsyncDir implements fuse.RawFileSystem.
func (r *requests) FsyncDir(_ <-chan struct{}, in *fuse.FsyncIn) fuse.Status {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.sync(&in.InHeader, FsyncDir, in.Fh)
}
