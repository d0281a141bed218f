package store

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/berth-hpc/berth/fault"
)

// Work is what a conversion leaves: folders that TempDir made.
type Work struct {
	// Folder holds image.json and record.json, and rootfs.sqfs if Rootfs is
	// nil; else that one does.
	Folder, Rootfs *os.File
	// Stager is the uid of the processes that wrote there.
	Stager int
	// Check, if not nil, looks at rootfs.sqfs, opened for reading, when nobody
	// but the caller can write to it any more. Its error keeps the image out.
	Check func(rootfs *os.File) error
	// Private keeps the image's folder to its owner, where others may see
	// those of the store; see Access. Origin, if not nil, is where all of it
	// was pulled from; else that stays as the record has it.
	Private bool
	Origin  *Origin
}

// rootfs is the folder of rootfs.sqfs.
func (w Work) rootfs() *os.File {
	if w.Rootfs != nil {
		return w.Rootfs
	}
	return w.Folder
}

// Publish moves the image that a conversion left in work into the store. The
// caller holds d's lock, and the processes that wrote to work are gone.
//
// On a managed node root calls this on folders that the pulling account may
// still own, so nothing in them is trusted: the files are moved, not copied,
// into a folder that only root can change, and only then opened, without
// following links, and checked: regular, one link, owned by the stager. They
// become root:root 0444 by descriptor and are synced; the folder gets its name
// last. Publishing what is already there is not an error.
func (s *Store) Publish(work Work, d Digest) (Image, error) {
	im := Image{dir: filepath.Join(s.imagesDir(), Key(d)), digest: d}
	dir, err := os.MkdirTemp(s.newDir(), Key(d)+".")
	if err != nil {
		return Image{}, siteError("publish image", d.String(), err)
	}
	defer os.RemoveAll(dir) // does nothing once renamed
	s.did("made folder")
	if err := s.takeAll(work, dir); err != nil {
		return Image{}, err
	}
	if err := work.check(dir); err != nil {
		return Image{}, err
	}
	if err := checkManifest(dir, d); err != nil {
		return Image{}, err
	}
	if err := work.label(dir, d); err != nil {
		return Image{}, err
	}
	if err := s.commit(dir, im); err != nil {
		return Image{}, siteError("publish image", d.String(), err)
	}
	return im, nil
}

// takeAll moves the files of an image from work to dir.
func (s *Store) takeAll(work Work, dir string) error {
	to, err := os.Open(dir)
	if err != nil {
		return siteError("publish image", dir, err)
	}
	defer to.Close()
	for _, name := range []string{RootfsName, ConfigName, RecordName} {
		from := work.Folder
		if name == RootfsName {
			from = work.rootfs()
		}
		if err := take(from, to, name, work.Stager); err != nil {
			return takeError(name, err)
		}
		s.did("took " + name)
	}
	// The folder's rights are on disk before its name is, too.
	return siteError("publish image", dir, errors.Join(to.Chmod(work.mode()), to.Sync()))
}

// check has the file looked at that will be published, in dir.
func (w Work) check(dir string) error {
	if w.Check == nil {
		return nil
	}
	f, err := openRegular(filepath.Join(dir, RootfsName))
	if err != nil {
		return siteError("publish image", dir, err)
	}
	defer f.Close()
	return w.Check(f)
}

// folderMode is what others may do with the store, and with the folders of
// images that are not private.
func folderMode() os.FileMode {
	if os.Geteuid() == 0 {
		return 0o755
	}
	return 0o700
}

// takeError blames the disk for what the kernel says, but for what it says of
// files that are not there or are not files: these are an attack, or a bug.
func takeError(name string, err error) error {
	var errno unix.Errno
	if errors.As(err, &errno) && errno != unix.ENOENT && errno != unix.ELOOP {
		return siteError("publish image", name, err)
	}
	return fault.Wrap("publish image", name, fault.Bug,
		"report this as a bug, or as an attack on the account that pulls images", err)
}

// take moves one file and makes it ours. It looks at the file only after the
// move, when nobody else can put another one under its name.
func take(work, to *os.File, name string, stager int) error {
	if err := unix.Renameat(int(work.Fd()), name, int(to.Fd()), name); err != nil {
		return fmt.Errorf("move: %w", err)
	}
	fd, err := unix.Openat(int(to.Fd()), name, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open: %w", err)
	}
	f := os.NewFile(uintptr(fd), name)
	defer f.Close()
	if err := checkFile(fd, stager); err != nil {
		return err
	}
	now := unix.NsecToTimeval(time.Now().UnixNano()) // see Image.LastUse
	if err := errors.Join(f.Chown(os.Geteuid(), os.Getegid()), f.Chmod(0o444), unix.Futimes(fd, []unix.Timeval{now, now})); err != nil {
		return err
	}
	return f.Sync()
}

// checkFile refuses all but a regular file with one name, owned by stager.
// A second name could be one that its owner can still write through.
func checkFile(fd, stager int) error {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return err
	}
	switch {
	case st.Mode&unix.S_IFMT != unix.S_IFREG:
		return errors.New("not a regular file")
	case st.Nlink != 1:
		return fmt.Errorf("has %d names, want one", st.Nlink)
	case int(st.Uid) != stager:
		return fmt.Errorf("belongs to uid %d, want %d", st.Uid, stager)
	}
	return nil
}

// checkManifest refuses an image.json that cannot be read back or is about
// another image.
func checkManifest(dir string, d Digest) error {
	var m Manifest
	if err := readJSON(filepath.Join(dir, ConfigName), &m); err != nil {
		return bugError("publish image", d.String(), "read %s: %w", ConfigName, err)
	}
	if m.Digest != d {
		return bugError("publish image", d.String(), "%s is about %v", ConfigName, m.Digest)
	}
	return nil
}

// commit gives the finished folder its name.
func (s *Store) commit(dir string, im Image) error {
	err := os.Rename(dir, im.dir)
	if errors.Is(err, unix.ENOTEMPTY) || errors.Is(err, unix.EEXIST) {
		return nil // somebody without our lock was faster: same digest, same image
	}
	if err != nil {
		return err
	}
	s.did("renamed")
	return syncDir(s.imagesDir()) // its name in newDir may come back: sweep removes that
}
