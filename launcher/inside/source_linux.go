package inside

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/berth-hpc/berth/launcher"
	"golang.org/x/sys/unix"
)

// Sources are opened once, as the user, and what was opened is what gets
// mounted: between the check and the mount no link can be moved. The file
// system behind a path may not answer (a dead NFS server, a FUSE server that
// hangs), so nothing here is waited for longer than the site's time limit.

// An opened source is what a path turned out to be, or why it did not open.
type opened struct {
	bind
	err error
}

// present opens all sources at once. It drops optional binds without a source,
// with a note if that is a fault, and refuses the others.
func (r *rootfs) present(all []bind, site *launcher.Site) ([]bind, error) {
	if err := os.Mkdir(filepath.Join(r.work, "sources"), 0o755); err != nil {
		return nil, err
	}
	allowed, err := r.rules(all, site)
	if err != nil {
		return nil, err
	}
	results := make([]chan opened, len(all))
	for i, b := range all {
		results[i] = make(chan opened, 1)
		go func() {
			err := r.open(&b, i, allowed)
			results[i] <- opened{b, err}
		}()
	}
	expired, cancel := bounded(site.MountTimeout)
	defer cancel()
	var out []bind
	for i := range all {
		f := answer(expired, results[i], all[i])
		switch {
		case f.err == nil:
			if !f.tmpfs {
				r.note(all[i].source, f.source)
			}
			out = append(out, f.bind)
		case !f.optional:
			return nil, sourceError(f.source, f.err, site.MountTimeout)
		case f.by == bySite && !errors.Is(f.err, os.ErrNotExist), errors.Is(f.err, context.DeadlineExceeded):
			r.notes = append(r.notes, fmt.Sprintf("%s is not in the container: %v", f.source, cause(f.err, site.MountTimeout)))
		default:
			r.note(all[i].source, "")
		}
	}
	return out, nil
}

// bounded returns a context that ends after limit, or never.
func bounded(limit time.Duration) (context.Context, context.CancelFunc) {
	if limit <= 0 {
		return context.WithCancel(context.Background())
	}
	return context.WithTimeout(context.Background(), limit)
}

// answer waits for a result. Who still hangs then ends with this process.
func answer(expired context.Context, result <-chan opened, b bind) opened {
	select {
	case f := <-result:
		return f
	default:
	}
	select {
	case f := <-result:
		return f
	case <-expired.Done():
		return opened{b, expired.Err()}
	}
}

// rules resolves the site's rules where a bind asks for them. If that hangs
// nothing is mounted: what can't be checked is not allowed.
func (r *rootfs) rules(binds []bind, site *launcher.Site) (rules, error) {
	needed := false
	for i := range binds {
		needed = needed || anyRule(site.Rules, binds[i].by)
	}
	if !needed {
		return rules{}, nil
	}
	done := make(chan rules, 1)
	go func() { done <- resolved(site.Rules, realPath) }()
	expired, cancel := bounded(site.MountTimeout)
	defer cancel()
	select {
	case all := <-done:
		return all, nil
	case <-expired.Done():
		return rules{}, siteError("mount: a path of the site's rules does not answer", "see which of container.user_mounts_* hangs on this node")
	}
}

// mountTmpfs makes a bind's tmpfs, so that who mistypes its options hears that.
func mountTmpfs(b *bind, place string) error {
	if err := os.Mkdir(place, 0o755); err != nil {
		return err
	}
	data := strings.TrimSuffix("mode=0755,"+b.data, ",")
	if err := unix.Mount("tmpfs", place, "tmpfs", uintptr(b.flags), data); err != nil {
		return userError(fmt.Sprintf("mount tmpfs:%s with %q: %v", b.target, b.data, err),
			"the options are those of tmpfs (man 5 tmpfs), joined by +, as in size=1G+mode=0700")
	}
	b.source, b.isDir = place, true
	return nil
}

func realPath(path string) (string, error) {
	f, err := openPath(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	return placeOf(f)
}

// placeOf is where an opened file is in this mount namespace.
func placeOf(f *os.File) (string, error) {
	return os.Readlink(fmt.Sprintf("/proc/self/fd/%d", f.Fd()))
}

// open opens the source of the bind with this number and looks what it is.
// What a user or job named is replaced by the opened mount itself.
func (r *rootfs) open(b *bind, number int, allowed rules) error {
	place := filepath.Join(r.work, "sources", strconv.Itoa(number))
	if b.tmpfs {
		return mountTmpfs(b, place)
	}
	if b.by == byUser && allowed.Forbid {
		return userError(fmt.Sprintf("mount %s: the site does not let users mount paths of the node", b.source), "leave it out")
	}
	f, err := openSource(b.source)
	if err != nil {
		return err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return err
	}
	b.isDir = st.IsDir()
	if b.by == byBerth {
		return nil
	}
	if anyRule(allowed.MountRules, b.by) {
		path, err := placeOf(f)
		if err != nil {
			return err
		}
		if err := allowed.apply(b, path); err != nil {
			return err
		}
	}
	return attach(b, f, place)
}

// openSource opens a path without reading it. The dot makes an automounter
// mount what belongs there.
func openSource(path string) (*os.File, error) {
	f, err := openPath(path + "/.")
	if errors.Is(err, unix.ENOTDIR) {
		return openPath(path)
	}
	if errors.Is(err, unix.EACCES) { // a folder that may not be entered can be shown
		if plain, plainErr := openPath(path); plainErr == nil {
			return plain, nil
		}
	}
	return f, err
}

func openPath(path string) (*os.File, error) {
	fd, err := unix.Open(path, unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: path, Err: err}
	}
	return os.NewFile(uintptr(fd), path), nil
}

// attach copies the opened mount, with what is mounted below unless the bind
// is a single one, to a place that nobody else can change, from which it
// is mounted.
func attach(b *bind, f *os.File, place string) error {
	flags := uint(unix.OPEN_TREE_CLONE | unix.OPEN_TREE_CLOEXEC | unix.AT_EMPTY_PATH)
	if !b.single {
		flags |= unix.AT_RECURSIVE
	}
	fd, err := unix.OpenTree(int(f.Fd()), "", flags)
	if err != nil {
		return cannotCopy(b, err)
	}
	defer unix.Close(fd)
	if b.isDir {
		err = os.Mkdir(place, 0o700)
	} else {
		err = os.WriteFile(place, nil, 0o600)
	}
	if err == nil {
		err = os.NewSyscallError("move_mount", unix.MoveMount(fd, "", unix.AT_FDCWD, place, unix.MOVE_MOUNT_F_EMPTY_PATH))
	}
	b.named, b.source = b.source, place
	return err
}

// cannotCopy explains EINVAL: the kernel refuses to show a mount without those
// below, which may hide something, and mounts of other namespaces.
func cannotCopy(b *bind, err error) error {
	switch {
	case !errors.Is(err, unix.EINVAL):
		return os.NewSyscallError("open_tree", err)
	case b.single:
		return userError(fmt.Sprintf("mount %s: other file systems are mounted in it, and the kernel shows it only with them", b.source),
			"leave out the flag bind")
	}
	return userError(fmt.Sprintf("mount %s: it is a place of another mount namespace", b.source), "name a path of this node")
}

// sourceError says what is wrong with a source that has to be there.
func sourceError(source string, err error, limit time.Duration) error {
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		return siteError(fmt.Sprintf("mount: source path %s: %v", source, cause(err, limit)),
			"its file system hangs on this node: tell the administrator, or leave the mount out")
	case errors.Is(err, os.ErrNotExist):
		return userError("mount: source path does not exist: "+source,
			"check the path on the compute node; it may exist on the login node only")
	}
	var path *os.PathError
	if errors.As(err, &path) {
		return userError(fmt.Sprintf("mount: source path %s: %v", source, path.Err),
			"choose a source that you may read on the compute node")
	}
	return err
}

func cause(err error, limit time.Duration) error {
	if errors.Is(err, context.DeadlineExceeded) {
		return fmt.Errorf("it did not answer within %v", limit)
	}
	return bare(err)
}
