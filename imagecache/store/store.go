// Package store keeps images on local disk: one folder per image, named by
// the image's digest and the version of the policy it was converted under.
//
//	images/sha256/<hex>.<policy>/   rootfs.sqfs  image.json  record.json; closed
//	                                to all but root where it is private (Access)
//	images/.new/                    folders on their way in
//	tmp/                            one work folder per conversion
//	locks/                          one lock file per digest and policy; it
//	                                holds what its holder has reserved
//	keep/                           images that stay although nobody uses them
//	unpacked/<hex>.<policy>/        in a user's store: images as folders
//
// What is below images/sha256 is complete, was synced to disk before it
// got its name, and never changes, but for record.json, which is replaced by
// rename. What is below tmp and images/.new is garbage unless the lock of its
// image is held. Correctness rests on rename; locks only save work.
//
// On a managed node root opens and owns the store and hands single work
// folders below tmp to the account that pulls. A user's own store belongs
// to the user altogether. Nothing here uses the network or reads an image's
// file system, so that the smallest programs can link it.
package store

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/berth-hpc/berth/fault"
)

// PolicyVersion names the rules by which an image's contents were changed on
// the way into the store (owners, modes, what is left out; see
// imagecache/policy.go). It is part of an image's name: a Berth with other
// rules converts again instead of using a file that was made under old ones.
const PolicyVersion = "p1"

// Names of the files of an image's folder.
const (
	RootfsName = "rootfs.sqfs"
	ConfigName = "image.json"
	RecordName = "record.json"

	newName   = ".new"     // the folder, beside that of the images, of what becomes one
	treesName = "unpacked" // the folder of unpacked images
)

// ErrNotFound is the cause when an image is not in the store.
var ErrNotFound = errors.New("not in the store")

// A Store is a folder that holds images. Its methods may be used by any
// number of processes and goroutines at once.
type Store struct {
	root   string
	shared bool // a Cluster's: never lock it by flock(2)
	// step is told what Publish has just done; the crash test ends the
	// process there. Nil otherwise.
	step func(string)
	// syncAll brings a folder to disk with all that is below it. Nil is
	// syncfs(2), which not every file system hears of; tests set another.
	syncAll func(dir string) error
}

// Open returns the store at root, an absolute path. It creates what is
// missing: as root with folders that everyone may search and only root may
// write, else private to the user.
func Open(root string) (*Store, error) {
	if !filepath.IsAbs(root) {
		return nil, &fault.Error{
			Op: "open store", Arg: root, Blame: fault.User,
			Remedy: "give the store as an absolute path", Err: errors.New("not an absolute path"),
		}
	}
	s := &Store{root: filepath.Clean(root)}
	if err := s.makeFolders(folderMode()); err != nil {
		return nil, siteError("open store", root, err)
	}
	return s, nil
}

// OpenExisting returns the store at root for reading and creates nothing.
func OpenExisting(root string) (*Store, error) {
	s := &Store{root: filepath.Clean(root)}
	if _, err := os.Stat(s.imagesDir()); err != nil {
		return nil, siteError("open store", root, err)
	}
	return s, nil
}

// makeFolders makes what is missing. The images come before what is beside
// them: makeFolder gives the folder that both are in the rights of the first.
func (s *Store) makeFolders(mode os.FileMode) error {
	for _, dir := range []struct {
		path string
		mode os.FileMode
	}{
		{s.root, mode},
		{s.imagesDir(), mode},
		{s.newDir(), 0o700},
		{s.tmpDir(), mode &^ 0o044},
		{s.locksDir(), 0o700},
	} {
		if err := makeFolder(dir.path, dir.mode); err != nil {
			return err
		}
	}
	return nil
}

// makeFolder is os.MkdirAll with the same rights for all that it makes, whatever
// the umask, and lets it survive a crash: an image is there as long as all
// folders above it are. One that is there already costs one stat.
func makeFolder(dir string, mode os.FileMode) error {
	if info, err := os.Stat(dir); err == nil && info.IsDir() {
		return nil
	}
	parent := filepath.Dir(dir)
	if err := makeFolder(parent, mode); err != nil {
		return err
	}
	err := os.Mkdir(dir, mode)
	if err == nil {
		err = errors.Join(os.Chmod(dir, mode), syncDir(dir))
	}
	if err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return syncDir(parent)
}

func (s *Store) did(step string) {
	if s.step != nil {
		s.step(step)
	}
}

// Root returns the store's folder.
func (s *Store) Root() string { return s.root }

func (s *Store) imagesDir() string { return filepath.Join(s.root, "images", "sha256") }
func (s *Store) newDir() string    { return filepath.Join(s.root, "images", newName) }
func (s *Store) tmpDir() string    { return filepath.Join(s.root, "tmp") }
func (s *Store) locksDir() string  { return filepath.Join(s.root, "locks") }
func (s *Store) keepDir() string   { return filepath.Join(s.root, "keep") }
func (s *Store) treesDir() string  { return filepath.Join(s.root, treesName) }

// Key returns the name of d's image folder: "<hex>.<policy>". It is the name
// of the image's mount point on a managed node, too.
func Key(d Digest) string { return d.Hex() + "." + PolicyVersion }

// Get returns the image that d names, or an error that is ErrNotFound. A hit
// costs one stat and takes no lock.
func (s *Store) Get(d Digest) (Image, error) {
	if d.IsZero() {
		return Image{}, &fault.Error{Op: "look up image", Blame: fault.Bug, Err: errors.New("no digest given")}
	}
	im := Image{dir: filepath.Join(s.imagesDir(), Key(d)), digest: d}
	_, err := os.Lstat(im.dir)
	switch {
	case err == nil:
		return im, nil
	case errors.Is(err, fs.ErrNotExist):
		return Image{}, &fault.Error{
			Op: "look up image", Arg: d.String(), Blame: fault.User,
			Remedy: "pull it first: berth pull IMAGE", Err: ErrNotFound,
		}
	default:
		return Image{}, siteError("look up image", d.String(), err)
	}
}

// List returns the images of this policy version, ordered by digest.
func (s *Store) List() ([]Image, error) {
	entries, err := os.ReadDir(s.imagesDir())
	if err != nil {
		return nil, siteError("list images", s.root, err)
	}
	var images []Image
	for _, e := range entries {
		hex, policy, _ := strings.Cut(e.Name(), ".")
		d, err := ParseDigest(digestPrefix + hex)
		if err != nil || policy != PolicyVersion {
			continue // another version's image, or nothing of ours
		}
		images = append(images, Image{dir: filepath.Join(s.imagesDir(), e.Name()), digest: d})
	}
	return images, nil
}

// siteError says that the machine or its file system is at fault.
func siteError(op, arg string, err error) error {
	remedy := "look at the store's folder: its owner, its rights, and the disk below it"
	switch {
	case errors.Is(err, os.ErrPermission):
		remedy = "the store must belong to whoever runs this; choose another folder or have its owner corrected"
	case errors.Is(err, unix.ENOSPC), errors.Is(err, unix.EDQUOT):
		remedy = "make room on the disk that holds the store, or choose another folder for it"
	}
	return fault.Wrap(op, arg, fault.Site, remedy, err)
}

// bugError says that something impossible was asked for.
func bugError(op, arg, format string, a ...any) error {
	return &fault.Error{
		Op: op, Arg: arg, Blame: fault.Bug,
		Remedy: "report this as a bug", Err: fmt.Errorf(format, a...),
	}
}
