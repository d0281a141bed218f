package doctor

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"
	"syscall"
)

// checkGroups tells users what their groups are in a container of berth run.
func checkGroups(_ context.Context, n *Node) []Finding {
	groups, err := os.Getgroups()
	if err != nil || n.Root {
		return nil
	}
	return groupsFinding(groups, os.Getegid())
}

func groupsFinding(groups []int, own int) []Finding {
	var others []string
	for _, g := range slices.Compact(slices.Sorted(slices.Values(groups))) {
		if g != own {
			others = append(others, fmt.Sprint(g))
		}
	}
	if len(others) == 0 {
		return nil
	}
	return good("in containers of berth run, " + strings.Join(others, ", ") +
		" are shown as 65534: the kernel lets users map their primary group alone; what they let you at stays open")
}

// checkMountSocket looks at what an admin need not have enabled.
func checkMountSocket(_ context.Context, n *Node) []Finding {
	info, err := os.Stat(n.MountSocket)
	switch {
	case errors.Is(err, fs.ErrNotExist) || n.MountSocket == "":
		return nil
	case err != nil:
		return one(Warn, oneLine(err), "systemctl status berth-mount.socket")
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	switch {
	case info.Mode().Type() != fs.ModeSocket || !ok || st.Uid != 0:
		return one(Warn, n.MountSocket+" is no socket of root's: users' own berth run pulls for itself",
			"remove it, and enable berth-mount.socket if users are to have the node's images")
	case info.Mode().Perm()&0o002 == 0:
		return one(Warn, n.MountSocket+" is closed to users, whose own berth run pulls for itself", "SocketMode=0666 in berth-mount.socket")
	}
	return good(n.MountSocket + " is there: users' own berth run uses the node's store")
}
