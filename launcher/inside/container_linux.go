package inside

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"github.com/berth-hpc/berth/launcher"
	"github.com/opencontainers/cgroups"
	"github.com/opencontainers/runc/libcontainer"
	"github.com/opencontainers/runc/libcontainer/configs"
	"golang.org/x/sys/unix"
)

// start lets libcontainer mount the binds and pivot into the root file
// system. It returns libcontainer's init, stopped before its exec: everything
// is in place, nothing of the image has run, and nothing ever runs in it.
// Tasks join the namespaces instead, so the caller kills init once it holds
// them.
//
// There is no user namespace in the config: we are already in the job's, and
// libcontainer refuses a new one that has no mapping for 0.
func start(r *rootfs, binds []bind, req *launcher.Request, hooks *hookSet) (*started, error) {
	left, err := r.attachBinds(binds)
	if err != nil {
		return nil, err
	}
	cfg := config(r, req, left)
	if err := hooks.configure(cfg, r.work, binds, req.Command); err != nil {
		return nil, err
	}
	container, err := libcontainer.Create(filepath.Join(r.work, "state"), "c", cfg)
	if err != nil {
		return nil, fmt.Errorf("libcontainer: %w", err)
	}
	yes := true
	c := &started{container: container, hooks: hooks}
	c.init = &libcontainer.Process{
		// libcontainer checks that the program exists. An image need not have
		// any particular one, but this link always leads to one.
		Args: []string{"/proc/self/exe"},
		Cwd:  "/", Init: true, NoNewPrivileges: &yes, LogLevel: "4",
	}
	if err := container.Start(c.init); err != nil {
		return nil, explainMount(hookFailure(fmt.Errorf("libcontainer: %w", err)), binds)
	}
	c.pid, err = c.init.Pid()
	return c, err
}

// A started container has its namespaces and libcontainer's init.
type started struct {
	container *libcontainer.Container
	init      *libcontainer.Process
	pid       int
	hooks     *hookSet
}

// end kills and reaps init; Wait's error says only that it was killed.
func (c *started) end() { _ = unix.Kill(c.pid, unix.SIGKILL); _, _ = c.init.Wait() }

func config(r *rootfs, req *launcher.Request, binds []bind) *configs.Config {
	c := &configs.Config{
		Rootfs:          r.path,
		Readonlyfs:      !req.Writable,
		Namespaces:      configs.Namespaces{{Type: configs.NEWNS}},
		RootlessCgroups: true, // the job's cgroup stays as it is
		Cgroups: &cgroups.Cgroup{
			Name: fmt.Sprintf("berth-%d", os.Getpid()), Resources: &cgroups.Resources{}, Rootless: true,
		},
		NoNewKeyring: true,
	}
	unshare(c, req.Made())
	for i := range binds {
		c.Mounts = append(c.Mounts, binds[i].config())
		if binds[i].target == "/dev" && slices.Contains(req.Unshare, launcher.UnshareIPC) {
			c.Mounts = append(c.Mounts, ipcMounts()...)
		}
	}
	return c
}

func (b *bind) config() *configs.Mount {
	m := &configs.Mount{Source: b.source, Destination: b.target, Device: "bind", PropagationFlags: []int{b.propagation}}
	m.Flags = b.flags | unix.MS_BIND | unix.MS_REC
	if b.single {
		m.Flags &^= unix.MS_REC
	}
	if b.readonly {
		// Recursive, so that what is mounted below is read-only too (Linux 5.12).
		m.RecAttr = &unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY}
	}
	return m
}
