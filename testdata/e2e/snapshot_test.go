package e2e

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/berth-hpc/berth/testdata/cluster"
	"github.com/berth-hpc/berth/testdata/deploy"
)

// A machine's residue is what of it could still be there when all jobs are
// gone: a set of lines, the same before and after.
type residue map[string]int

func (r residue) add(format string, args ...any) { r[fmt.Sprintf(format, args...)]++ }

// since returns what r has more of than before, and what no idle node has.
func (r residue) since(before residue) []string {
	var more []string
	for line, n := range r {
		// An image is mounted as long as a job uses it, so never here.
		image := strings.HasPrefix(line, "loop device") || strings.Contains(line, " of squashfs ")
		if n > before[line] || image {
			more = append(more, fmt.Sprintf("%s (%d, %d before)", line, n, before[line]))
		}
	}
	slices.Sort(more)
	return more
}

// residueOf looks at all that a machine's kernel and disks hold.
func (s *site) residueOf(t *testing.T, machine string) residue {
	t.Helper()
	r := residue{}
	for _, p := range s.With(t).Processes(machine) {
		describe(p, r)
	}
	if machine == "ctl" {
		return r // where jobs are submitted
	}
	rootDir := filepath.Join("/proc", s.With(t).PID(machine), "root")
	for _, dir := range []string{"run/berth", "var/lib/berth/tmp", "var/lib/berth/locks", "var/lib/berth/images", "tmp", "dev/shm", "run/lock"} {
		addFiles(t, r, rootDir, dir)
	}
	addHiddenMounts(t, r, filepath.Join(rootDir, "run/berth/private/mounts.ns"))
	addLoops(t, r, filepath.Join(rootDir, "var/lib/berth"))
	return r
}

var number = regexp.MustCompile(`[0-9]+`)

// describe adds a process, the mounts that it sees, and the namespaces that
// it is in or has open. Numbers that differ each time are left out.
func describe(p cluster.Process, r residue) {
	if p.Name == lingering {
		return
	}
	r.add("process %s", p.Name)
	for _, ns := range []string{"user", "mnt", "pid", "net", "ipc", "uts"} {
		if link, err := os.Readlink(p.Dir + "/ns/" + ns); err == nil {
			r[fmt.Sprintf("namespace %s in %s", link, p.Name)] = 1
		}
	}
	fds, _ := os.ReadDir(p.Dir + "/fd") // it may have ended
	for _, fd := range fds {
		link, err := os.Readlink(filepath.Join(p.Dir, "fd", fd.Name()))
		if err == nil && strings.Contains(link, ":[") && !strings.HasPrefix(link, "socket:") && !strings.HasPrefix(link, "pipe:") {
			r.add("namespace open in %s: %s", p.Name, number.ReplaceAllString(link, "N"))
		}
	}
	text, _ := os.ReadFile(p.Dir + "/mountinfo")
	for line := range strings.Lines(string(text)) {
		r.add("mount in %s: %s", p.Name, mountOf(line))
	}
}

// mountOf is where, what and of what a line of mountinfo is.
func mountOf(line string) string {
	left, right, _ := strings.Cut(strings.TrimSpace(line), " - ")
	f, g := strings.Fields(left), strings.Fields(right)
	return fmt.Sprintf("%s of %s %s", f[4], g[0], number.ReplaceAllString(g[1], "N"))
}

// addFiles adds the names of all files below dir.
func addFiles(t *testing.T, r residue, rootDir, dir string) {
	t.Helper()
	err := filepath.WalkDir(filepath.Join(rootDir, dir), func(path string, _ fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err == nil {
			r.add("file %s", strings.TrimPrefix(path, rootDir))
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

// addHiddenMounts adds the mounts of the namespace that holds the images. It
// has no /proc: the thread brings the host's along.
func addHiddenMounts(t *testing.T, r residue, pin string) {
	t.Helper()
	type result struct {
		text string
		err  error
	}
	done := make(chan result)
	go func() {
		runtime.LockOSThread() // the thread ends in the other namespace
		text, err := mountsIn(pin)
		done <- result{text, err}
	}()
	got := <-done
	if got.err != nil {
		t.Fatal(got.err)
	}
	for line := range strings.Lines(got.text) {
		r.add("mount in mounts.ns: %s", mountOf(line))
	}
}

func mountsIn(pin string) (string, error) {
	proc, err := unix.Open("/proc", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return "", err
	}
	defer unix.Close(proc)
	ns, err := os.Open(pin)
	if err != nil {
		return "", err
	}
	defer ns.Close()
	if err := errors.Join(unix.Unshare(unix.CLONE_FS), unix.Setns(int(ns.Fd()), unix.CLONE_NEWNS)); err != nil {
		return "", fmt.Errorf("enter %s: %w", pin, err)
	}
	fd, err := unix.Openat(proc, "thread-self/mountinfo", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return "", err
	}
	f := os.NewFile(uintptr(fd), "mountinfo")
	defer f.Close()
	var text strings.Builder
	_, err = f.WriteTo(&text)
	return text.String(), err
}

// addLoops adds the loop devices whose file lies in the store.
func addLoops(t *testing.T, r residue, store string) {
	t.Helper()
	for _, path := range deploy.LoopDevices(t, store) {
		r.add("loop device of %s", filepath.Base(filepath.Dir(path)))
	}
}

// A usage is what a daemon uses: open descriptors and kilobytes of memory.
type usage struct{ fds, rss int }

func (s *site) usage(t *testing.T) map[string]usage {
	t.Helper()
	all := map[string]usage{}
	for _, machine := range []string{"ctl", "n1", "n2", "n3"} {
		for _, p := range s.With(t).Processes(machine) {
			if p.Name != "slurmd" && p.Name != "slurmctld" {
				continue
			}
			fds, err := os.ReadDir(p.Dir + "/fd")
			if err != nil {
				t.Fatal(err)
			}
			status, err := os.ReadFile(p.Dir + "/status")
			if err != nil {
				t.Fatal(err)
			}
			m := regexp.MustCompile(`RssAnon:\s*(\d+)`).FindSubmatch(status)
			rss, err := strconv.Atoi(string(m[1]))
			if err != nil {
				t.Fatal(err)
			}
			all[machine+" "+p.Name] = usage{len(fds), rss}
		}
	}
	return all
}
