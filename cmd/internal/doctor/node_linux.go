package doctor

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

func checkSettings(_ context.Context, n *Node) []Finding {
	if n.ConfigError != "" {
		return one(Fail, n.ConfigError+" (the checks below go by the built-in settings)", n.ConfigRemedy)
	}
	return good("they can be read")
}

// checkPrograms looks for the programs in libexec.
func checkPrograms(_ context.Context, n *Node) []Finding {
	for _, name := range []string{"berth-create", "berth-join"} {
		path := filepath.Join(n.Libexec, name)
		if err := unix.Access(path, unix.X_OK); err != nil {
			return one(Fail, path+": "+oneLine(err), "install Berth with its libexec folder, or set BERTH_LIBEXEC to that folder")
		}
	}
	return good("berth-create and berth-join are in " + n.Libexec)
}

func checkSquashfuse(context.Context, *Node) []Finding {
	path, err := exec.LookPath("squashfuse_ll")
	if err != nil {
		return one(Warn, "no squashfuse_ll: berth run unpacks images instead, which takes time and disk, and writable containers on kernels without idmapped squashfs fail",
			"install the squashfuse package")
	}
	return good(path)
}

func checkOwnStore(_ context.Context, n *Node) []Finding {
	switch {
	case n.Root:
		return nil
	case n.UserDir == "":
		return one(Fail, "you have no home folder, so no place for images", "set HOME, or BERTH_STORE_USER_DIR to a folder of yours on a local disk")
	}
	return storeSpace(n.UserDir, "set BERTH_STORE_USER_DIR to a folder of yours with more room")
}

// checkNodeStore: whose it is, whether root can write there, and how much.
func checkNodeStore(_ context.Context, n *Node) []Finding {
	dir := n.StoreDir
	info, err := os.Stat(dir)
	switch {
	case errors.Is(err, fs.ErrNotExist) && !n.Root:
		return nil // an unmanaged machine
	case errors.Is(err, fs.ErrNotExist):
		found := storeSpace(dir, "make room there, or set store.dir to a folder with more")
		found[0].Detail += "; the first job makes it"
		return found
	case err != nil:
		return one(Fail, oneLine(err), "set store.dir to a folder of root's on a local disk")
	case !info.IsDir():
		return one(Fail, dir+" is no folder", "set store.dir to a folder of root's on a local disk")
	}
	if f := foreign(dir, info); f != nil {
		return f
	}
	return storeSpace(dir, "make room there, or set store.dir to a folder with more")
}

// foreign says that others than root could put something at path.
func foreign(path string, info fs.FileInfo) []Finding {
	st, ok := info.Sys().(*syscall.Stat_t)
	if ok && st.Uid != 0 {
		return one(Fail, fmt.Sprintf("%s belongs to uid %d, who could replace what root mounts", path, st.Uid), "chown root:root "+path)
	}
	if info.Mode().Perm()&0o022 != 0 {
		return one(Fail, path+" can be written by others than root", "chmod go-w "+path)
	}
	return nil
}

// Limits below which a store is short of room: an image of moderate size, and
// the files of one that is being unpacked.
const (
	bytesLeft  = 2 << 30
	bytesWarn  = 20 << 30
	inodesLeft = 20000
)

// storeSpace judges the file system that holds dir, or will.
func storeSpace(dir, remedy string) []Finding {
	at := existing(dir)
	var st unix.Statfs_t
	if err := unix.Statfs(at, &st); err != nil {
		return one(Fail, at+": "+oneLine(err), remedy)
	}
	free := int64(st.Bavail) * st.Bsize
	text := fmt.Sprintf("%s has %.1f GB and %d inodes free", dir, float64(free)/1e9, st.Ffree)
	switch {
	case st.Flags&unix.ST_RDONLY != 0 || errors.Is(unix.Access(at, unix.W_OK), unix.EROFS):
		return one(Fail, dir+" is on a read-only file system", "mount it writable (after a look at the kernel log), or set another folder")
	case free < bytesLeft:
		return one(Fail, text+", too little for an image", remedy)
	case st.Files > 0 && st.Ffree < inodesLeft:
		return one(Fail, text+", too few for an image's files", remedy)
	case networked(st.Type):
		return one(Warn, dir+" is on a network file system: jobs start slower, and on some the kernel can't mount images", "set a folder on a local disk")
	case free < bytesWarn:
		return one(Warn, text, remedy)
	}
	return good(text)
}

// existing is dir, or the nearest folder above it that is there.
func existing(dir string) string {
	for dir != "/" {
		if _, err := os.Stat(dir); err == nil {
			break
		}
		dir = filepath.Dir(dir)
	}
	return dir
}

// networked knows the magic numbers of statfs(2): NFS, Lustre, GPFS, CIFS, AFS,
// and Ceph.
func networked(magic int64) bool {
	switch magic {
	case unix.NFS_SUPER_MAGIC, 0x0bd00bd0, 0x47504653, 0xff534d42, unix.AFS_SUPER_MAGIC, 0x00c36400:
		return true
	}
	return false
}

// checkRunDir: the first job makes the folder, and covers it by a tmpfs; what
// is there already must be root's.
func checkRunDir(_ context.Context, n *Node) []Finding {
	info, err := os.Stat(n.RunDir)
	if errors.Is(err, fs.ErrNotExist) {
		if !n.Root {
			return nil
		}
		return runDirAbove(n.RunDir)
	}
	if err != nil {
		return one(Fail, oneLine(err), "let root make the folder node.run_dir")
	}
	if !info.IsDir() {
		return one(Fail, n.RunDir+" is no folder: no job can start a container", "remove it; the next job makes the folder")
	}
	if f := foreign(n.RunDir, info); f != nil {
		return f
	}
	return good(n.RunDir + " is root's")
}

func runDirAbove(dir string) []Finding {
	above := existing(dir)
	if err := unix.Access(above, unix.W_OK); err != nil {
		return one(Fail, fmt.Sprintf("%s is missing and root can't make it: %s", dir, oneLine(err)), "set node.run_dir to a folder below /run")
	}
	return good(dir + " is missing; the first job makes it")
}

// lines splits a file into what a configuration file says: comments, blank
// lines and continuations are dealt with.
func lines(text string) []string {
	text = strings.ReplaceAll(text, "\\\n", " ")
	var all []string
	for line := range strings.Lines(text) {
		line, _, _ = strings.Cut(line, "#")
		if line = strings.TrimSpace(line); line != "" {
			all = append(all, line)
		}
	}
	return all
}
