package inside

import (
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"

	"github.com/berth-hpc/berth/launcher"
	"golang.org/x/sys/unix"
)

// addMarker makes the file that tells further tasks what this container is
// (launcher.Marker), still empty, and has it shown. Nobody but the user may
// read it: it can hold what they gave to --env.
func (r *rootfs) addMarker() (bind, error) {
	path := filepath.Join(r.work, "marker")
	return bind{
		source: path, target: launcher.MarkerPath, readonly: true,
		flags: unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC, propagation: unix.MS_PRIVATE,
	}, os.WriteFile(path, nil, 0o400)
}

// writeMarker fills it once the container of process pid is complete.
func (r *rootfs) writeMarker(req *launcher.Request, pid int, result *os.File) error {
	var st unix.Stat_t
	if err := unix.Stat(fmt.Sprintf("/proc/%d/ns/mnt", pid), &st); err != nil {
		return os.NewSyscallError("stat", err)
	}
	message, err := io.ReadAll(io.NewSectionReader(result, 0, math.MaxInt64))
	if err != nil {
		return err
	}
	m := launcher.Marker{Label: req.Label, Remap: req.RemapRoot, Unshare: req.Unshare, Mount: st.Ino, Result: message}
	data, err := m.Encode()
	if err != nil {
		return userError(fmt.Sprintf("what a further task has to know: %v", err), "give fewer or shorter variables")
	}
	f, err := os.OpenFile(filepath.Join(r.work, "marker"), os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	return errors.Join(err, f.Close())
}
