package inside

import (
	"fmt"
	"os"

	"github.com/berth-hpc/berth/launcher"
	"github.com/opencontainers/runc/libcontainer/configs"
	"golang.org/x/sys/unix"
)

// unshare gives the container further namespaces. They belong to N1, as its
// mount namespace does.
func unshare(c *configs.Config, kinds []string) {
	for _, kind := range kinds {
		switch kind {
		case launcher.UnshareIPC:
			c.Namespaces = append(c.Namespaces, configs.Namespace{Type: configs.NEWIPC})
		case launcher.UnshareUTS:
			c.Namespaces = append(c.Namespaces, configs.Namespace{Type: configs.NEWUTS})
		case launcher.UnshareNet:
			c.Namespaces = append(c.Namespaces, configs.Namespace{Type: configs.NEWNET})
			c.Networks = []*configs.Network{{Type: "loopback"}} // brought up
		}
	}
}

// ipcMounts are what belongs to an IPC namespace below /dev: shared memory and
// message queues of other containers are not seen. They can only cover what
// the host has.
func ipcMounts() []*configs.Mount {
	const flags = unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC
	var mounts []*configs.Mount
	for _, m := range []configs.Mount{
		{Source: "shm", Destination: "/dev/shm", Device: "tmpfs", Flags: flags, Data: "mode=1777"},
		{Source: "mqueue", Destination: "/dev/mqueue", Device: "mqueue", Flags: flags},
	} {
		if st, err := os.Lstat(m.Destination); err == nil && st.IsDir() {
			mounts = append(mounts, &m)
		}
	}
	return mounts
}

// openOwn opens the namespaces that the container of process pid has of its
// own.
func openOwn(pid int, kinds []string) ([]*os.File, error) {
	var files []*os.File
	for _, kind := range kinds {
		f, err := os.Open(fmt.Sprintf("/proc/%d/ns/%s", pid, kind))
		if err != nil {
			closeAll(files)
			return nil, err
		}
		files = append(files, f)
	}
	return files, nil
}

func closeAll(files []*os.File) {
	for _, f := range files {
		f.Close()
	}
}
