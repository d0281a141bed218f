// Command minimal is the least that starts a container with libcontainer: what
// `make bench` compares Berth's creation of a container with. It runs as root,
// with the root file system as its argument, and does what package inside has
// libcontainer do: mounts and a pivot in a mount namespace, by an init that is
// stopped before its exec.
package main

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"syscall"

	"github.com/opencontainers/cgroups"
	"github.com/opencontainers/runc/libcontainer"
	"github.com/opencontainers/runc/libcontainer/configs"
	_ "github.com/opencontainers/runc/libcontainer/nsenter"
	"github.com/sirupsen/logrus"
)

func main() {
	if len(os.Args) > 1 && os.Args[1] == "init" {
		libcontainer.Init()
		return
	}
	logrus.SetOutput(io.Discard)
	if err := run(os.Args[1]); err != nil {
		fmt.Fprintln(os.Stderr, "minimal:", err)
		os.Exit(1)
	}
}

func run(rootfs string) error {
	state, err := os.MkdirTemp("", "minimal")
	if err != nil {
		return err
	}
	defer os.RemoveAll(state)
	container, err := libcontainer.Create(filepath.Join(state, "state"), "c", config(rootfs))
	if err != nil {
		return err
	}
	yes := true
	init := &libcontainer.Process{Args: []string{"/bin/true"}, Cwd: "/", Init: true, NoNewPrivileges: &yes, LogLevel: "4"}
	if err := container.Start(init); err != nil {
		return err
	}
	pid, err := init.Pid()
	if err != nil {
		return err
	}
	err = syscall.Kill(pid, syscall.SIGKILL)
	_, _ = init.Wait() // it says that it was killed
	return err
}

func config(rootfs string) *configs.Config {
	c := &configs.Config{
		Rootfs: rootfs, Readonlyfs: true, NoNewKeyring: true, RootlessCgroups: true,
		Namespaces: configs.Namespaces{{Type: configs.NEWNS}},
		Cgroups:    &cgroups.Cgroup{Name: fmt.Sprintf("minimal-%d", os.Getpid()), Resources: &cgroups.Resources{}, Rootless: true},
	}
	for _, path := range []string{"/proc", "/sys", "/dev", "/tmp", "/var/tmp"} {
		c.Mounts = append(c.Mounts, &configs.Mount{
			Source: path, Destination: path, Device: "bind", Flags: syscall.MS_BIND | syscall.MS_REC,
			PropagationFlags: []int{syscall.MS_SLAVE | syscall.MS_REC},
		})
	}
	return c
}
