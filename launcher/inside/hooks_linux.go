package inside

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/berth-hpc/berth/fault"
	"github.com/berth-hpc/berth/launcher"
	"github.com/berth-hpc/berth/launcher/hooks"
	"github.com/opencontainers/runc/libcontainer/configs"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// hookEnv is the environment of hooks, before their own variables.
const hookEnv = "PATH=/usr/sbin:/usr/bin:/sbin:/bin"

// A hookSet is the hooks of one container, for libcontainer, which runs each
// stage where and when the runtime specification says. Each is started
// through RunHook, because libcontainer waits for ever for what a killed hook
// leaves behind.
type hookSet struct {
	configs.Hooks
	start  []hooks.Run // of the stage startContainer, which are ours to run
	labels map[string]string
	notes  []string
}

// chooseHooks returns the admin's hooks that the container wants, after those
// of its devices.
func chooseHooks(req *launcher.Request, all []hooks.Hook, devs *chosen, image *imageConfig) *hookSet {
	set := &hookSet{Hooks: configs.Hooks{}, labels: image.Config.Labels}
	limit := time.Duration(req.HookTimeout)
	for i := range devs.Hooks {
		h := &devs.Hooks[i]
		run := hooks.Run{Name: "of a device", Path: h.Path, Args: h.Args, Env: h.Env, Timeout: limit}
		if h.Timeout != nil && *h.Timeout > 0 {
			run.Timeout = time.Duration(min(*h.Timeout, hooks.MaxTimeout)) * time.Second
		}
		set.add(h.HookName, &run)
	}
	facts := hooks.Facts{Command: req.Command, Annotations: image.Config.Labels, BindMounts: len(req.Mounts) > 0}
	for i := range all {
		h := &all[i]
		if !h.Wants(&facts) {
			continue
		}
		run := hooks.Run{Name: h.Name, Path: h.Path, Args: h.Args, Env: h.Env, Timeout: limit}
		if h.Timeout > 0 {
			run.Timeout = time.Duration(h.Timeout) * time.Second
		}
		for _, stage := range h.Stages {
			set.add(stage, &run)
		}
	}
	return set
}

func (s *hookSet) add(stage string, r *hooks.Run) {
	name := configs.HookName(stage)
	if name == configs.Poststop {
		s.notes = append(s.notes, fmt.Sprintf("hook %s: its stage poststop is not run: a container ends with its last task", r.Name))
		return
	}
	if name == configs.StartContainer {
		s.start = append(s.start, *r)
		return
	}
	args := append([]string{"berth-create", "hook", r.Name, r.Timeout.String(), r.Path}, r.Args...)
	s.Hooks[name] = append(s.Hooks[name], configs.NewCommandHook(&configs.Command{
		Path: "/proc/self/exe", Args: args, Env: append([]string{hookEnv}, r.Env...),
	}))
}

// RunHook is `berth-create hook NAME TIMEOUT PATH [ARG0...]`, which
// libcontainer starts with the container's state on its input and in the
// hook's own environment.
func RunHook(args []string, state io.Reader) error {
	if len(args) < 3 {
		return fmt.Errorf("hook: %d arguments", len(args))
	}
	limit, err := time.ParseDuration(args[1])
	if err != nil {
		return fmt.Errorf("hook: %w", err)
	}
	r := hooks.Run{Name: args[0], Path: args[2], Args: args[3:], Timeout: limit}
	if err := r.Do(state); err != nil {
		return fmt.Errorf("%s%w", hooks.Mark, err)
	}
	return nil
}

// configure gives libcontainer the hooks, and hooks what they read of the
// container: the bundle that its state names.
func (s *hookSet) configure(c *configs.Config, work string, binds []bind, command string) error {
	if len(s.Hooks)+len(s.start) == 0 {
		return nil
	}
	bundle := filepath.Join(work, "bundle")
	spec := specs.Spec{
		Version: specs.Version, Annotations: s.labels,
		Root: &specs.Root{Path: c.Rootfs, Readonly: c.Readonlyfs}, Process: &specs.Process{Cwd: "/", Args: []string{command}},
	}
	for i := range binds {
		spec.Mounts = append(spec.Mounts, specs.Mount{Destination: binds[i].target, Source: binds[i].source, Type: "bind"})
	}
	text, err := json.Marshal(&spec)
	if err != nil {
		return err
	}
	if err := os.Mkdir(bundle, 0o755); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(bundle, "config.json"), text, 0o644); err != nil {
		return err
	}
	c.Hooks = s.Hooks
	c.Labels = []string{"bundle=" + bundle}
	for _, k := range slices.Sorted(maps.Keys(s.labels)) {
		c.Labels = append(c.Labels, k+"="+s.labels[k])
	}
	return nil
}

// runStartHooks runs the hooks of the stage startContainer: programs of the
// container's root file system, in its mount namespace, without capabilities.
// libcontainer would run them right before the exec of a task, which there is
// none of.
func (c *started) runStartHooks(mnt *os.File) error {
	if len(c.hooks.start) == 0 {
		return nil
	}
	state, err := c.container.OCIState()
	if err != nil {
		return err
	}
	state.Status = specs.StateCreated
	text, err := json.Marshal(state)
	if err != nil {
		return err
	}
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with this function
		done <- runWithin(mnt, c.hooks.start, text)
	}()
	return <-done
}

// runWithin moves the calling thread into a mount namespace, for good.
func runWithin(mnt *os.File, runs []hooks.Run, state []byte) error {
	if err := unix.Unshare(unix.CLONE_FS); err != nil {
		return os.NewSyscallError("unshare(CLONE_FS)", err)
	}
	if err := unix.Setns(int(mnt.Fd()), unix.CLONE_NEWNS); err != nil {
		return os.NewSyscallError("setns", err)
	}
	if err := dropRights(); err != nil {
		return err
	}
	for i := range runs {
		runs[i].Env = append([]string{hookEnv}, runs[i].Env...)
		if err := runs[i].Do(bytes.NewReader(state)); err != nil {
			return hookFault(err.Error())
		}
	}
	return nil
}

// dropRights takes the calling thread's capabilities away, and what exec would
// give the user as root in appearance.
func dropRights() error {
	const noRoot = 1<<0 | 1<<1 // SECBIT_NOROOT, locked (capabilities(7))
	if err := unix.Prctl(unix.PR_SET_SECUREBITS, noRoot, 0, 0, 0); err != nil {
		return os.NewSyscallError("prctl(PR_SET_SECUREBITS)", err)
	}
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var none [2]unix.CapUserData
	return os.NewSyscallError("capset", unix.Capset(&header, &none[0]))
}

// hookFailure finds the words of a hook in an error of libcontainer's.
func hookFailure(err error) error {
	_, said, ok := strings.Cut(err.Error(), hooks.Mark)
	if !ok {
		return err
	}
	return hookFault(said)
}

func hookFault(said string) error {
	return siteError(fault.Clean(strings.TrimSpace(said)), "tell your administrator: the hooks are the site's, in the folders of its setting hooks.dirs or of a device's CDI spec")
}
