// Package changes keeps what containers under a name changed in their root
// file system: a folder for each name, below the user's own store.
//
//	containers/<name>/
//	    container.json   the image below, and when the container was made
//	    upper/ work/     the upper and the work folder of an overlay
//	    points           mount points of ours in upper, see NotePoints
//	    lock             held (flock) while the container is in use
//
// All of it belongs to the user, who may do with it what they like; nothing
// here is run by root for somebody else. One container at a time uses a name.
package changes

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/berth-hpc/berth/fault"
	"github.com/berth-hpc/berth/imagecache/store"
	"golang.org/x/sys/unix"
)

// Names of what is in a container's folder.
const (
	UpperName  = "upper"
	WorkName   = "work"
	recordName = "container.json"
	pointsName = "points"
	lockName   = "lock"
)

// maxName is the longest name in bytes. It leaves room for what file names add.
const maxName = 128

// ErrNotFound is the cause when there is no container of a name.
var ErrNotFound = errors.New("there is no such container")

// A Record is container.json.
type Record struct {
	Name string `json:"name"`
	// Digest is the image's, Reference one that leads to it from anywhere on
	// this machine, Platform its OS/ARCH[/VARIANT]. A file of the user's, which
	// a job mounts as it is, has no digest.
	Digest    store.Digest `json:"digest"`
	Reference string       `json:"reference"`
	Platform  string       `json:"platform,omitempty"`
	Created   time.Time    `json:"created"` // UTC
}

// Containers is a folder of containers' changes, containers/ of a store.
type Containers struct{ dir string }

// In returns the containers of the store at root. Nothing is made yet.
func In(root string) Containers { return Containers{dir: filepath.Join(root, "containers")} }

// A Container is the changes under one name. In and Make give one.
type Container struct {
	Record
	dir string
}

// Dir returns the container's folder, for launcher.Request.Changes.
func (c *Container) Dir() string { return c.dir }

// Upper returns the folder that holds the changes as an overlay keeps them.
func (c *Container) Upper() string { return filepath.Join(c.dir, UpperName) }

// CheckName says what is wrong with a container's name. It becomes a folder's
// name, and never looks like a path or an option.
func CheckName(name string) error {
	valid := name != "" && len(name) <= maxName && !strings.ContainsAny(name[:1], ".-")
	for _, c := range name {
		valid = valid && (c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || strings.ContainsRune("_.-", c))
	}
	if valid {
		return nil
	}
	return &fault.Error{
		Op: "name container", Arg: fmt.Sprintf("%q", name), Blame: fault.User, Err: errors.New("not a name"),
		Remedy: fmt.Sprintf("use letters, digits, and _ . - within the name, %d at most", maxName),
	}
}

// CheckOwn refuses a folder that is not the caller's alone: it may be below one
// in which everybody can make some, such as /var/tmp.
func CheckOwn(dir string) error {
	var st unix.Stat_t
	if err := unix.Lstat(dir, &st); err != nil {
		return &fs.PathError{Op: "lstat", Path: dir, Err: err}
	}
	if st.Mode&unix.S_IFMT != unix.S_IFDIR || int(st.Uid) != os.Geteuid() || st.Mode&0o022 != 0 {
		return errors.New("it is not a folder that is the user's alone")
	}
	return nil
}

// Get returns the container called name, or an error that is ErrNotFound.
func (cs Containers) Get(name string) (*Container, error) {
	if err := CheckName(name); err != nil {
		return nil, err
	}
	c := &Container{dir: filepath.Join(cs.dir, name)}
	data, err := os.ReadFile(filepath.Join(c.dir, recordName))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, &fault.Error{
			Op: "look up container", Arg: name, Blame: fault.User, Err: ErrNotFound,
			Remedy: "list those that there are: berth containers; make one: berth run --name " + name + " IMAGE",
		}
	}
	if err == nil {
		err = json.Unmarshal(data, &c.Record)
	}
	if err == nil && (c.Name != name || c.Digest.IsZero() && !filepath.IsAbs(c.Reference)) {
		err = errors.New("container.json is about something else")
	}
	return c, siteError("look up container", name, err)
}

// List returns the containers that there are, ordered by name.
func (cs Containers) List() ([]*Container, error) {
	entries, err := os.ReadDir(cs.dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, siteError("list containers", cs.dir, err)
	}
	list := []*Container{}
	for _, e := range entries {
		if CheckName(e.Name()) != nil {
			continue // being made, or being removed
		}
		c, err := cs.Get(e.Name())
		if errors.Is(err, ErrNotFound) {
			continue // removed meanwhile
		}
		if err != nil {
			return nil, err
		}
		list = append(list, c)
	}
	return list, nil
}

// Make makes an empty container as r describes it, and takes its lock. Of two
// that make the same name at once, one gets the error of Lock.
func (cs Containers) Make(ctx context.Context, r Record) (*Container, *Lock, error) {
	if err := CheckName(r.Name); err != nil {
		return nil, nil, err
	}
	c := &Container{Record: r, dir: filepath.Join(cs.dir, r.Name)}
	lock, err := c.make(cs.dir)
	if errors.Is(err, fs.ErrExist) {
		lock, err = c.Lock(ctx)
	}
	return c, lock, siteError("make container", r.Name, err)
}

// make gives the folder its name when it is complete.
func (c *Container) make(parent string) (*Lock, error) {
	if err := os.MkdirAll(parent, 0o700); err != nil {
		return nil, err
	}
	part, err := os.MkdirTemp(parent, ".new-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(part) // does nothing once renamed
	for _, dir := range []string{UpperName, WorkName} {
		if err := os.Mkdir(filepath.Join(part, dir), 0o755); err != nil {
			return nil, err
		}
		if err := os.Chmod(filepath.Join(part, dir), 0o755); err != nil { // whatever the umask
			return nil, err
		}
	}
	if err := store.WriteJSON(filepath.Join(part, recordName), 0o644, c.Record); err != nil {
		return nil, err
	}
	lock, err := openLock(part)
	if err != nil {
		return nil, err
	}
	if _, err := lock.try(); err != nil {
		return nil, errors.Join(err, lock.Release())
	}
	if err := unix.Renameat2(unix.AT_FDCWD, part, unix.AT_FDCWD, c.dir, unix.RENAME_NOREPLACE); err != nil {
		return nil, errors.Join(err, lock.Release())
	}
	return lock, nil
}

// Size returns how many bytes the changes take on disk.
func (c *Container) Size() (int64, error) {
	var bytes int64
	err := filepath.WalkDir(c.Upper(), func(path string, _ fs.DirEntry, err error) error {
		var st unix.Stat_t
		if err == nil && unix.Lstat(path, &st) == nil {
			bytes += st.Blocks * 512
		}
		return nil // what can't be read, or is gone, doesn't count
	})
	return bytes, err
}

// Size returns how many bytes all containers take on disk.
func (cs Containers) Size() (int64, error) {
	list, err := cs.List()
	var bytes int64
	for _, c := range list {
		n, sizeErr := c.Size()
		bytes, err = bytes+n, errors.Join(err, sizeErr)
	}
	return bytes, err
}

// Used returns when the container was last used: when its lock was last taken.
func (c *Container) Used() time.Time {
	info, err := os.Stat(filepath.Join(c.dir, lockName))
	if err != nil {
		return c.Created
	}
	return info.ModTime()
}

// Expire removes the containers that nobody uses, nor has used for the time of
// after.
func (cs Containers) Expire(after time.Duration) error {
	list, err := cs.List()
	for _, c := range list {
		if time.Since(c.Used()) >= after {
			err = errors.Join(err, c.expire())
		}
	}
	return err
}

func (c *Container) expire() error {
	l, err := openLock(c.dir)
	if err != nil {
		return nil //nolint:nilerr // somebody removes it
	}
	defer func() { _ = l.Release() }()
	if c.take(l) != nil {
		return nil // it is in use
	}
	return c.Remove()
}

// RemoveAll removes all containers, in use or not, and the folder they are in.
func (cs Containers) RemoveAll() error { return removeTree(cs.dir) }

// NotePoints writes down mount points that Berth is about to make among the
// changes in dir, a container's folder: they are none of the container's
// changes. Each is relative to the root, folders before what is in them. They
// are removed by the next Lock.
func NotePoints(dir string, points []string) error {
	return store.WriteJSON(filepath.Join(dir, pointsName), 0o644, points)
}

// Points returns what NotePoints wrote down in dir, a container's folder.
func Points(dir string) ([]string, error) {
	data, err := os.ReadFile(filepath.Join(dir, pointsName))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	var points []string
	if err == nil {
		err = json.Unmarshal(data, &points)
	}
	return points, err
}

// removePoints removes the mount points of the last run, but for those that
// are not empty any more.
func (c *Container) removePoints() error {
	points, err := Points(c.dir)
	if err != nil || points == nil {
		return err
	}
	root, err := os.OpenRoot(c.Upper())
	if err != nil {
		return err
	}
	defer root.Close()
	for _, rel := range slices.Backward(points) {
		if err := removePoint(root, rel); err != nil {
			return err
		}
	}
	return os.Remove(filepath.Join(c.dir, pointsName))
}

// removePoint removes an empty folder or file and leaves the time of the
// folder above as it was.
func removePoint(root *os.Root, rel string) error {
	info, err := root.Lstat(rel)
	if err != nil || !info.IsDir() && (!info.Mode().IsRegular() || info.Size() > 0) {
		return nil //nolint:nilerr // gone, or something else by now
	}
	above := filepath.Dir(rel)
	was, err := root.Stat(above)
	if err != nil {
		return err
	}
	if err := root.Remove(rel); err != nil && !errors.Is(err, unix.ENOTEMPTY) {
		return err
	}
	return root.Chtimes(above, was.ModTime(), was.ModTime())
}

func siteError(op, arg string, err error) error {
	return fault.Wrap(op, arg, fault.Site, "look at the folder of containers in your store: its rights, and the disk below it", err)
}
