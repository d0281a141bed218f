package doctor

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"os/exec"

	"github.com/berth-hpc/berth/launcher"
)

// checkSubIDs looks at what container.sub_ids needs, where it is on.
func checkSubIDs(_ context.Context, n *Node) []Finding {
	if !n.SubIDs {
		return nil
	}
	if found := subIDFiles("/etc/subuid", "/etc/subgid"); found != nil {
		return found
	}
	if _, err := exec.LookPath("newuidmap"); err != nil && !n.Root {
		return one(Warn, "no newuidmap: commands by hand get no further ids", "install the package uidmap (shadow-utils)")
	}
	return good("/etc/subuid and /etc/subgid can be used")
}

// subIDFiles says what is wrong with one of the files; nil is nothing.
func subIDFiles(paths ...string) []Finding {
	for _, path := range paths {
		if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
			return one(Warn, "no "+path+": nobody has further ids", "write it, or set container.sub_ids = false")
		}
		// Nobody's own lines: what is looked at is whose file it is.
		if _, err := launcher.ReadSubIDs(path, "", -1, -1); err != nil {
			return one(Fail, "jobs of users who appear as root fail: "+oneLine(err), "chown root "+path+" && chmod 644 "+path)
		}
	}
	return nil
}
