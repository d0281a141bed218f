package inside

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/berth-hpc/berth/imagefile"
	"github.com/berth-hpc/berth/launcher"
	securejoin "github.com/cyphar/filepath-securejoin"
	"golang.org/x/sys/unix"
)

// attachFile makes a squashfs or SIF file, or a folder, of the user's the tree
// below, opened as the user. The kernel never mounts such a file: it goes
// through FUSE, in a process of the user's. A folder is bound.
func (r *rootfs) attachFile(channel *os.File, req *launcher.Request) error {
	path := req.Image.Path
	if !filepath.IsAbs(path) {
		path = filepath.Join(req.Job.Dir, path)
	}
	r.note(path, path)
	kind, err := imagefile.Identify(path)
	if err != nil {
		return badFile(path, bare(err), "give a squashfs file, a SIF file or a folder that you may read on the compute node")
	}
	switch kind {
	case imagefile.Tree:
		if _, err := os.ReadDir(path + "/."); err != nil {
			return badFile(path, bare(err), "give a folder that you may read")
		}
		return r.bindFolder(path)
	case imagefile.OCILayout, imagefile.DockerDir:
		return badFile(path, errors.New("it is a folder of layers, which has to be converted first"), convertRemedy(path))
	}
	f, err := os.Open(path)
	if err != nil {
		return badFile(path, bare(err), "give a squashfs or SIF file that you may read on the compute node")
	}
	defer f.Close()
	offset, err := imagefile.FindSquashfs(f)
	switch {
	case errors.Is(err, imagefile.ErrArchive):
		return badFile(path, err, convertRemedy(path))
	case err != nil:
		return badFile(path, err, "give a squashfs file (mksquashfs, enroot import), a SIF file (apptainer pull) or a folder with a root file system")
	}
	if info, err := f.Stat(); err == nil {
		if c, ok := imagefile.AppendedConfig(f, info.Size()); ok {
			r.appended = &c
		}
	}
	return r.mountFUSE(channel, offset, f)
}

// convertRemedy is for images that are layers: a container needs their tree.
func convertRemedy(path string) string {
	return fmt.Sprintf("make a squashfs file of it, and name that: berth save %s x.sqsh", path)
}

func badFile(path string, cause error, remedy string) error {
	return userError(fmt.Sprintf("image %s: %v", path, cause), remedy)
}

// bare is an error without the path, which is said already.
func bare(err error) error {
	if inner := errors.Unwrap(err); inner != nil {
		return inner
	}
	return err
}

// readFile reads a file of the image, whose links do not lead out of it.
func (r *rootfs) readFile(name string) ([]byte, error) { return readBelow(r.image, name) }

// readTree reads a file of what the container's root shows.
func (r *rootfs) readTree(name string) ([]byte, error) { return readBelow(r.tree, name) }

func readBelow(root, name string) ([]byte, error) {
	path, err := securejoin.SecureJoin(root, name)
	if err != nil {
		return nil, err
	}
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0) // it may be a pipe
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, maxConfig))
}
