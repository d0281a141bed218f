package imagecache

import (
	"archive/tar"
	"math"
	"time"
)

// The policy of contents, store.PolicyVersion. An image in a store is one file
// that many users read, without the ids its files had when it was built. So:
//
//   - all is owned by root, and what root could read, all may read: files
//     get a+r, and a+x if anybody had x; folders at least 0755;
//   - no setuid, no setgid, and the sticky bit on folders only: nothing in an
//     image may give rights;
//   - no extended attributes: file capabilities give rights, ACLs name ids
//     that mean nothing here, and user.* cannot be set on every disk, so the
//     result would depend on where it was made;
//   - no device nodes: a container gets its devices from the host;
//   - times in whole seconds that squashfs can hold, 1970 to 2106.
//
// The rules depend on the layers' headers alone: not on who converts, nor on
// umask or file system. Change them only together with PolicyVersion.

// deviceMode marks what stands for a device node until all layers are
// unpacked. It cannot drop out at once: it hides what a lower layer has under
// its name, and hard links may lead to it. No file that is kept has this mode.
const deviceMode = 0

// applyPolicy changes h to what the policy makes of it. It reports false for
// headers that are no files at all.
func applyPolicy(h *tar.Header) bool {
	h.Uid, h.Gid, h.Uname, h.Gname = 0, 0, "", ""
	h.PAXRecords = nil
	h.Xattrs = nil //nolint:staticcheck // umoci reads the deprecated field
	h.ModTime = clampTime(h.ModTime)
	h.AccessTime, h.ChangeTime = time.Time{}, time.Time{}
	switch h.Typeflag {
	case tar.TypeXGlobalHeader:
		return false
	case tar.TypeDir:
		h.Mode = h.Mode&0o1777 | 0o755
	case tar.TypeChar, tar.TypeBlock:
		h.Typeflag, h.Size, h.Mode = tar.TypeReg, 0, deviceMode
		h.Devmajor, h.Devminor = 0, 0
	case tar.TypeGNUSparse, tar.TypeCont:
		h.Typeflag = tar.TypeReg // archive/tar fills the holes
		h.Mode = fileMode(h.Mode)
	default:
		h.Mode = fileMode(h.Mode)
	}
	return true
}

func fileMode(mode int64) int64 {
	mode = mode&0o777 | 0o444
	if mode&0o111 != 0 {
		mode |= 0o111
	}
	return mode
}

func clampTime(t time.Time) time.Time {
	return time.Unix(min(max(t.Unix(), 0), math.MaxUint32), 0)
}
