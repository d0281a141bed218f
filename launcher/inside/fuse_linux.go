package inside

import (
	"fmt"
	"os"
	"path/filepath"

	"github.com/berth-hpc/berth/launcher"
	"golang.org/x/sys/unix"
)

// mountFUSE mounts an empty FUSE connection as the image and sends its
// descriptor out, followed by the file to be served if the user opened one. /dev/fuse must be opened in the user namespace that mounts
// it; the server runs outside of the container's namespaces, because inside
// it would keep them alive for ever. It ends with ENODEV when the last task
// is gone. Uids of the file system are read in N1, so root's files appear as
// the user's.
func (r *rootfs) mountFUSE(channel *os.File, offset int64, file ...*os.File) error {
	dev, err := os.OpenFile("/dev/fuse", os.O_RDWR, 0)
	if err != nil {
		return siteError(fmt.Sprintf("mount the image: %v", err), "load the fuse kernel module (modprobe fuse)")
	}
	defer dev.Close()
	r.image = filepath.Join(r.work, "image")
	if err := os.Mkdir(r.image, 0o755); err != nil {
		return err
	}
	const flags = unix.MS_NOSUID | unix.MS_NODEV | unix.MS_RDONLY
	data := fmt.Sprintf("fd=%d,rootmode=40000,user_id=0,group_id=0,allow_other,default_permissions", dev.Fd())
	if err := unix.Mount("berth", r.image, "fuse", flags, data); err != nil {
		return siteError(fmt.Sprintf("mount the image: fuse: %v", err), "FUSE in user namespaces needs Linux 4.18")
	}
	return launcher.SendReply(channel, &launcher.Reply{FUSE: true, Offset: offset}, append([]*os.File{dev}, file...)...)
}
