package e2e

import (
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/berth-hpc/berth/testdata/cluster"
	"golang.org/x/sys/unix"
)

var residueJobs = flag.Int("residue.jobs", 200, "how many jobs TestResidue runs, bare and then in an image")

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

// machinePID is process number 1 of a machine, as the host numbers it.
func (s *site) machinePID(t *testing.T, machine string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(s.Dir, "machines", machine, "pid"))
	if err != nil {
		t.Fatal(err)
	}
	return strings.Fields(string(text))[0]
}

// residueOf looks at all that a machine's kernel and disks hold.
func (s *site) residueOf(t *testing.T, machine string) residue {
	t.Helper()
	r := residue{}
	pid := s.machinePID(t, machine)
	for _, p := range s.processes(t, machine) {
		p.describe(r)
	}
	if machine == "ctl" {
		return r // where jobs are submitted
	}
	rootDir := filepath.Join("/proc", pid, "root")
	for _, dir := range []string{"run/berth", "var/lib/berth/tmp", "var/lib/berth/locks", "var/lib/berth/images", "tmp", "dev/shm", "run/lock"} {
		addFiles(t, r, rootDir, dir)
	}
	addHiddenMounts(t, r, filepath.Join(rootDir, "run/berth/mounts.ns"))
	addLoops(t, r, filepath.Join(rootDir, "var/lib/berth"))
	return r
}

// A process of a machine, by its folder in the host's /proc.
type process struct{ dir, name string }

// processes finds those in a machine's pid namespace, or in one within it.
func (s *site) processes(t *testing.T, machine string) []process {
	t.Helper()
	own, err := os.Stat("/proc/" + s.machinePID(t, machine) + "/ns/pid")
	if err != nil {
		t.Fatal(err)
	}
	dirs, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		t.Fatal(err)
	}
	var found []process
	for _, dir := range dirs {
		name, err := os.ReadFile(dir + "/comm")
		if err == nil && within(dir+"/ns/pid", own) {
			found = append(found, process{dir, strings.TrimSpace(string(name))})
		}
	}
	return found
}

// within says whether a pid namespace is own or below it.
func within(path string, own fs.FileInfo) bool {
	ns, err := os.Open(path)
	for err == nil {
		var info fs.FileInfo
		if info, err = ns.Stat(); err == nil && os.SameFile(info, own) {
			ns.Close()
			return true
		}
		// EPERM above our own namespace.
		parent, ioctlErr := unix.IoctlRetInt(int(ns.Fd()), unix.NS_GET_PARENT)
		ns.Close()
		if ioctlErr != nil {
			return false
		}
		ns = os.NewFile(uintptr(parent), path)
	}
	return false
}

var number = regexp.MustCompile(`[0-9]+`)

// describe adds the process, the mounts that it sees, and the namespaces that
// it is in or has open. Numbers that differ each time are left out.
func (p process) describe(r residue) {
	if p.name == lingering {
		return
	}
	r.add("process %s", p.name)
	for _, ns := range []string{"user", "mnt", "pid", "net", "ipc", "uts"} {
		if link, err := os.Readlink(p.dir + "/ns/" + ns); err == nil {
			r[fmt.Sprintf("namespace %s in %s", link, p.name)] = 1
		}
	}
	fds, _ := os.ReadDir(p.dir + "/fd") // it may have ended
	for _, fd := range fds {
		link, err := os.Readlink(filepath.Join(p.dir, "fd", fd.Name()))
		if err == nil && strings.Contains(link, ":[") && !strings.HasPrefix(link, "socket:") && !strings.HasPrefix(link, "pipe:") {
			r.add("namespace open in %s: %s", p.name, number.ReplaceAllString(link, "N"))
		}
	}
	text, _ := os.ReadFile(p.dir + "/mountinfo")
	for line := range strings.Lines(string(text)) {
		r.add("mount in %s: %s", p.name, mountOf(line))
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

// addLoops adds the loop devices whose file lies in the store. Their paths
// don't tell: other clusters have the same ones.
func addLoops(t *testing.T, r residue, store string) {
	t.Helper()
	for _, loop := range loops(t) {
		_ = filepath.WalkDir(store, func(path string, d fs.DirEntry, err error) error {
			var st unix.Stat_t
			if err == nil && unix.Lstat(path, &st) == nil && st.Ino == loop.Inode && st.Dev == loop.Device {
				r.add("loop device of %s", filepath.Base(filepath.Dir(path)))
			}
			return nil
		})
	}
}

func loops(t *testing.T) []unix.LoopInfo64 {
	t.Helper()
	busy, err := filepath.Glob("/sys/block/loop*/loop/backing_file")
	if err != nil {
		t.Fatal(err)
	}
	var all []unix.LoopInfo64
	for _, path := range busy {
		dev, err := os.Open("/dev/" + strings.Split(path, "/")[3])
		if err != nil {
			t.Fatal(err)
		}
		info, err := unix.IoctlLoopGetStatus64(int(dev.Fd()))
		dev.Close()
		if err == nil { // else it was freed meanwhile
			all = append(all, *info)
		}
	}
	return all
}

// A usage is what a daemon uses: open descriptors and kilobytes of memory.
type usage struct{ fds, rss int }

func (s *site) usage(t *testing.T) map[string]usage {
	t.Helper()
	all := map[string]usage{}
	for _, machine := range []string{"ctl", "n1", "n2", "n3"} {
		for _, p := range s.processes(t, machine) {
			if p.name != "slurmd" && p.name != "slurmctld" {
				continue
			}
			fds, err := os.ReadDir(p.dir + "/fd")
			if err != nil {
				t.Fatal(err)
			}
			status, err := os.ReadFile(p.dir + "/status")
			if err != nil {
				t.Fatal(err)
			}
			m := regexp.MustCompile(`RssAnon:\s*(\d+)`).FindSubmatch(status)
			rss, err := strconv.Atoi(string(m[1]))
			if err != nil {
				t.Fatal(err)
			}
			all[machine+" "+p.name] = usage{len(fds), rss}
		}
	}
	return all
}

// A crowd is several users' scripts, each of which starts its jobs one after
// the other without waiting, and ends a third of them.
type crowd struct {
	jobs   int
	image  string // "" for bare jobs
	random *rand.Rand
}

// script is one user's share. Every line is one job.
func (c *crowd) script(user, share int) string {
	var b strings.Builder
	b.WriteString("cd ~\n")
	for i := range share {
		fmt.Fprintf(&b, "( %s ) >>log 2>&1 &\nsleep %.2f\n", c.job(user+i), c.random.Float64()*0.4)
	}
	// Slurm does not miss an srun that was killed: its job stays.
	b.WriteString("wait\nscancel -n sleep -u $USER\n")
	return b.String()
}

// job is a shell command that runs one job to its end, or ends it.
func (c *crowd) job(i int) string {
	options := fmt.Sprintf("-N%d", 1+c.random.IntN(3))
	if c.image != "" {
		options += " --container-image=" + c.image
	}
	moment := fmt.Sprintf("%.2f", c.random.Float64()*1.5)
	const work = "sleep 0.$((RANDOM % 10))"
	batch := "id=$(sbatch --parsable -o /dev/null " + options + " --wrap '" + work + "')"
	if i%3 != 0 {
		if c.random.IntN(2) == 0 {
			return batch
		}
		return "srun " + options + " sh -c '" + work + "'"
	}
	switch c.random.IntN(4) {
	case 0:
		return batch + "; sleep " + moment + "; scancel $id"
	case 1:
		return batch + "; sleep " + moment + "; scancel -s KILL $id; scancel $id"
	case 2: // srun itself goes without a word
		return "timeout -s KILL " + moment + " srun " + options + " sleep 3"
	default:
		return "srun " + options + " sh -c 'kill -9 $$'"
	}
}

// run has all users do their share, and waits until the cluster is idle.
func (c *crowd) run(t *testing.T, s *site) {
	t.Helper()
	users := []string{"alice", "bob", "carol"}
	var wait sync.WaitGroup
	for i, user := range users {
		script := c.script(i, c.jobs/len(users))
		wait.Go(func() {
			r := s.With(t).Do(t.Context(), cluster.Command{
				Machine: "ctl", User: user, Args: []string{"bash", "-s"}, Stdin: strings.NewReader(script), Timeout: 3 * time.Minute,
			})
			if r.Code != 0 {
				t.Errorf("%s: %v", user, r)
			}
		})
	}
	wait.Wait()
	s.With(t).WaitIdle()
}

// outcomes asserts that jobs ran, and that others were ended.
func (s *site) outcomes(t *testing.T) {
	t.Helper()
	n := map[string]int{}
	out := s.With(t).MustRun(t.Context(), "ctl", "root", "scontrol", "-o", "show", "job")
	for _, m := range regexp.MustCompile(`JobState=(\w+)`).FindAllStringSubmatch(out, -1) {
		n[m[1]]++
	}
	t.Log(n)
	all := 2 * *residueJobs
	if n["COMPLETED"] < all/2 || n["COMPLETED"] > all*9/10 || n["CANCELLED"] < all/30 || n["FAILED"] < all/30 {
		t.Errorf("of %d jobs: %v", all, n)
	}
}

// TestResidue runs hundreds of jobs, a third of which are cancelled or killed
// at random moments, and compares the nodes before and after. What Slurm's
// daemons grow by is compared with as many bare jobs.
func TestResidue(t *testing.T) {
	s := newSite(t)
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d, %d jobs", seed, *residueJobs)
	random := rand.New(rand.NewPCG(seed, 0))
	machines := []string{"ctl", "n1", "n2", "n3"}

	// From here on the image, the pinned namespace and the logs are there.
	if r := s.as(t, "alice", "srun -N3 --container-image="+tiny+" true && srun -N3 true"); r.Code != 0 {
		t.Fatal(r)
	}
	fresh := s.usage(t)
	bare := &crowd{jobs: *residueJobs, random: random}
	bare.run(t, s)
	before, bareUsage := map[string]residue{}, s.usage(t)
	for _, m := range machines {
		before[m] = s.residueOf(t, m)
	}

	inImage := &crowd{jobs: *residueJobs, random: random, image: tiny}
	done := make(chan struct{})
	go func() { defer close(done); s.linger(t) }()
	inImage.run(t, s)
	<-done
	s.lingers(t)
	s.outcomes(t)
	for _, m := range machines {
		if more := s.settled(t, m, before[m]); len(more) > 0 {
			t.Errorf("%s has more than before:\n%s", m, strings.Join(more, "\n"))
		}
	}
	s.compareUsage(t, fresh, bareUsage, s.usage(t))
	s.idle(t)
}

// settled gives what ends by itself ten seconds, and returns the rest.
func (s *site) settled(t *testing.T, machine string, before residue) []string {
	t.Helper()
	deadline := time.Now().Add(10 * time.Second)
	for {
		more := s.residueOf(t, machine).since(before)
		if len(more) == 0 || time.Now().After(deadline) {
			return more
		}
	}
}

// lingering is the name of the processes that linger leaves.
const lingering = "lingering"

// linger leaves a user's mount namespaces on n1, made while an image is
// mounted there.
func (s *site) linger(t *testing.T) {
	s.With(t).MustRun(t.Context(), "n1", "root", "install", "-m", "755", "/bin/sleep", "/var/tmp/"+lingering)
	for i := range 3 {
		until(t, time.Minute, "an image is mounted on n1", func() bool {
			r := residue{}
			addLoops(t, r, filepath.Join("/proc", s.machinePID(t, "n1"), "root/var/lib/berth"))
			return len(r) > 0
		})
		s.Spawn(fmt.Sprint(lingering, i), cluster.Command{Machine: "n1", User: "carol", Args: []string{"unshare", "-Urm", "/var/tmp/" + lingering, "600"}})
	}
}

// lingers asserts that those namespaces are there and hold no image.
func (s *site) lingers(t *testing.T) {
	t.Helper()
	n := 0
	for _, p := range s.processes(t, "n1") {
		if p.name != lingering {
			continue
		}
		n++
		mounts, err := os.ReadFile(p.dir + "/mountinfo")
		if err != nil || strings.Contains(string(mounts), "squashfs") {
			t.Errorf("a user's namespace: %v\n%s", err, mounts)
		}
	}
	if n != 3 {
		t.Errorf("%d lingering namespaces", n)
	}
}

func (s *site) compareUsage(t *testing.T, fresh, bare, after map[string]usage) {
	t.Helper()
	for name, u := range after {
		b, f := bare[name], fresh[name]
		t.Logf("%s: descriptors %d, %d, %d; kB %d, %d, %d (at first, after bare jobs, after jobs in an image)", name, f.fds, b.fds, u.fds, f.rss, b.rss, u.rss)
		if more := u.fds - max(f.fds, b.fds); more > 2 {
			t.Errorf("%s has %d descriptors more than after bare jobs", name, more)
		}
		if more := u.rss - b.rss; more > 2048+2*max(0, b.rss-f.rss) {
			t.Errorf("%s has %d kB more than after bare jobs, which added %d", name, more, b.rss-f.rss)
		}
	}
}
