package main

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/berth-hpc/berth/cmd/internal/config"
	"github.com/berth-hpc/berth/imagecache"
	"github.com/berth-hpc/berth/launcher"
	"github.com/berth-hpc/berth/launcher/devices"
	"github.com/berth-hpc/berth/launcher/join"
	"golang.org/x/sys/unix"
)

// A container that has been made for one command can stand ready for further
// ones (package join; taking it is the C part's, before main). It is offered
// with everything on which it depended that this run made it as it is: the
// variables that were looked at, the files that were read, the paths that are
// mounted.

// longest is how long a container that stands ready is taken without looking at
// the image anew, whatever its reference.
const longest = time.Hour

// A laterRun is what a container needs to stand ready. nil for one that will not.
type laterRun struct {
	cmd    *runCmd
	idle   time.Duration
	until  time.Duration
	words  []string
	files  []string // that were read for the devices
	wish   devices.Wish
	mounts *os.File
	server [2]*os.File // a pipe; the image's server has its second end
	image  []string    // the image's own command
}

// prepareReuse is called before the container is made.
func (c *runCmd) prepareReuse(s *session, cfg *config.Config, creation *launcher.Creation) *laterRun {
	words, ok := c.words(s.args)
	until := c.believed(cfg)
	if !ok || !c.reusable(cfg, creation.Request) || until <= 0 {
		return nil
	}
	mounts, err := join.OpenMountTable()
	if err != nil {
		return nil
	}
	l := &laterRun{cmd: c, idle: cfg.Container.IdleTimeout, until: until, words: words, mounts: mounts, image: c.imageCommand, wish: creation.Request.Devices}
	l.files = slices.Concat(cfg.Devices.SpecDirs, filesIn(cfg.Devices.SpecDirs), cfg.Hooks.Dirs)
	if l.server[0], l.server[1], err = os.Pipe(); err != nil {
		l.close()
		return nil
	}
	creation.Hold = l.server[1]
	return l
}

// reusable says whether nothing that one command does can be seen by the next
// one, but for what both see of the host.
func (c *runCmd) reusable(cfg *config.Config, r *launcher.Request) bool {
	private := func(mount string) bool { return strings.Contains(mount, "tmpfs:") }
	entrypoint := c.Entrypoint != nil && *c.Entrypoint // to be put before a command that Go does not see
	volumes := c.hasVolumes && r.Site.Volumes          // in memory, one command's
	if c.HostMPI || len(filesIn(cfg.Hooks.Dirs)) > 0 {
		return false // hooks run for each command's container
	}
	return c.Reuse && !entrypoint && !volumes && cfg.Container.IdleTimeout > 0 && c.Name == "" && !r.Writable && !c.RemapRoot && len(r.Unshare) == 0 &&
		!r.Devices.Minimal && !slices.ContainsFunc(r.Mounts, private) && !slices.ContainsFunc(r.Site.Mounts, private)
}

// filesIn lists what is in some folders.
func filesIn(dirs []string) []string {
	var all []string
	for _, dir := range dirs {
		files, _ := filepath.Glob(filepath.Join(dir, "*"))
		all = append(all, files...)
	}
	return all
}

// believed is for how long the image's name means the same.
func (c *runCmd) believed(cfg *config.Config) time.Duration {
	if imageIsFile(c.Image) {
		return longest // the path is looked at each time
	}
	ref, err := imagecache.ParseReference(c.Image)
	switch {
	case err != nil || ref.Kind() != imagecache.Registry:
		return 0
	case ref.Digest().IsZero():
		return min(longest, cfg.Resolve.TTL)
	}
	return longest
}

// words are the arguments before the command's.
func (c *runCmd) words(args []string) ([]string, bool) {
	n := len(args) - len(c.Command)
	ok := n >= 2 && args[0] == "run" && slices.Equal(args[n:], c.Command) && args[n-1] == c.Image
	if !ok {
		return nil, false
	}
	return args[:n], true
}

// offer has the container stand ready. That it can't is no reason to fail.
func (l *laterRun) offer(ctx context.Context, s *session, t tools, users *launcher.UserNamespaces, container *launcher.Container) {
	if l == nil || len(container.Notes) > 0 { // each run is told those
		return
	}
	l.server[1].Close()
	server := l.server[0]
	if closed(server) { // nobody serves the image
		server = nil
	}
	o := &join.Offer{
		Join: t.join, Words: l.words, Idle: l.idle, Until: l.until,
		Users: users, Container: container, Server: server, Mounts: l.mounts,
		Files:     append(slices.Clone(s.read), t.create, t.join, "/etc/passwd", "/etc/group"),
		Variables: map[string]string{},
		Command:   l.image, Remove: append(loginVariables(), "PWD", "OLDPWD"), Keep: l.cmd.given.names(),
	}
	for _, v := range l.cmd.given {
		if strings.Contains(v, "=") {
			o.Sets = append(o.Sets, v)
		}
	}
	o.Files = append(append(o.Files, l.files...), l.cmd.EnvFile...)
	l.watchDevices(s, o)
	if imageIsFile(l.cmd.Image) {
		o.Files = append(o.Files, l.cmd.Image)
	}
	for name := range s.looked {
		value, set := s.lookupEnv(name)
		switch {
		case slices.Contains(loginVariables(), name): // a secret, and nothing depends on it
		case set:
			o.Variables[name] = value
		default:
			o.Unset = append(o.Unset, name)
		}
	}
	if err := o.Start(ctx); err != nil && !errors.Is(err, join.ErrNotReady) {
		s.log.WithError(err).Debug("this container will not stand ready for the next run")
	}
}

// watchDevices adds the variables that say which devices a container has.
func (l *laterRun) watchDevices(s *session, o *join.Offer) {
	o.Endings = []string{"_VISIBLE_DEVICES"}
	for _, line := range l.wish.Scheduler {
		_, names, _ := strings.Cut(line, "=")
		for _, name := range strings.Split(names, ",") {
			s.looked[name] = true
		}
	}
	for _, v := range s.environ() {
		if name, _, _ := strings.Cut(v, "="); strings.HasSuffix(name, o.Endings[0]) {
			s.looked[name] = true
		}
	}
}

// closed says whether the other end of a pipe has been closed by all.
func closed(pipe *os.File) bool {
	fds := []unix.PollFd{{Fd: int32(pipe.Fd())}}
	n, err := unix.Poll(fds, 0)
	return err != nil || n > 0
}

func (l *laterRun) close() {
	if l == nil {
		return
	}
	for _, f := range []*os.File{l.mounts, l.server[0], l.server[1]} {
		if f != nil {
			f.Close()
		}
	}
}
