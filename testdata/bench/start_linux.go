package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/berth-hpc/berth/launcher"
)

// StartSpec is what `bench start` reads as JSON on standard input. Dir has the
// programs and, as start/tiny.sqsh, the image.
type StartSpec struct {
	Dir    string        `json:"dir"`
	Rounds int           `json:"rounds"`
	Limit  time.Duration `json:"limit"`
}

// StartResult is its answer. Memory's samples have bytes per container for Wall.
type StartResult struct {
	One     []Sample            `json:"one"`
	Burst   []Sample            `json:"burst"`
	Memory  map[string][]Sample `json:"memory"`
	Missing map[string]string   `json:"missing"` // why, by variant
}

const (
	burst = 128
	width = 16
)

// A starter has what the variants need: one image as a squashfs file, mounted by
// the kernel for Berth's root side, and as a folder for the others.
type starter struct {
	*roots
	spec   StartSpec
	image  string
	folder string
	home   string
	short  string // a folder for podman, which wants a path of 50 characters at most
}

// runStart needs root, a session and a mount namespace of its own.
func runStart(ctx context.Context, in io.Reader, out io.Writer) error {
	var spec StartSpec
	if err := json.NewDecoder(in).Decode(&spec); err != nil {
		return fmt.Errorf("read what to measure: %w", err)
	}
	s, err := newStarter(ctx, spec)
	if err != nil {
		return err
	}
	defer s.end(ctx)
	r := StartResult{Missing: map[string]string{}, Memory: map[string][]Sample{}}
	one := s.available(s.variants(), r.Missing)
	bounded, cancel := context.WithTimeout(ctx, spec.Limit)
	r.One = interleave(bounded, spec.Rounds, one, func(v Variant) Sample { return s.once(ctx, v) })
	cancel()
	many := slices.DeleteFunc(one, func(v Variant) bool {
		return !slices.Contains([]string{bareExec, limitC, bwrap, join, warmRun, coldRun}, v.Name)
	})
	bounded, cancel = context.WithTimeout(ctx, spec.Limit)
	r.Burst = interleave(bounded, max(min(3, spec.Rounds), spec.Rounds/6), many, func(v Variant) Sample { return s.many(ctx, v) })
	cancel()
	if err := s.memory(ctx, r.Memory); err != nil {
		return err
	}
	return json.NewEncoder(out).Encode(r)
}

func newStarter(ctx context.Context, spec StartSpec) (*starter, error) {
	dir := filepath.Join(spec.Dir, "start")
	s := &starter{spec: spec, image: filepath.Join(dir, "tiny.sqsh"), folder: filepath.Join(dir, "folder"), home: filepath.Join(dir, "home")}
	f, err := os.Open(s.image)
	if err != nil {
		return nil, err
	}
	s.roots = &roots{dir: dir, missing: map[string]string{}, boxes: map[string]*launcher.Container{}}
	s.roots.image = f
	err = command(ctx, "sh", "-ec", `
		unsquashfs -q -n -f -d "$1" "$2"
		mkdir -p "$1/proc" "$1/sys" "$1/dev" "$1/tmp" "$1/var/tmp"`, "sh", s.folder, s.image)
	if err := errors.Join(err, makeHome(ctx, s.home), shareFUSE(ctx, dir)); err != nil {
		return nil, err
	}
	if s.short, err = os.MkdirTemp("", "berth"); err != nil {
		return nil, err
	}
	if s.mounts, err = launcher.OpenMounts(ctx, filepath.Join(dir, "run")); err != nil {
		return nil, err
	}
	if err := s.mounts.MountImage(ctx, imageName, f); err != nil {
		return nil, err
	}
	if s.users, err = launcher.NewUserNamespaces(ctx, "/proc/self/exe", benchUser); err != nil {
		return nil, err
	}
	s.boxes[inBerth], err = s.create(ctx, inBerth)
	return s, err
}

// makeHome gives benchUser a home, with a folder for what runs.
func makeHome(ctx context.Context, home string) error {
	return command(ctx, "sh", "-ec", `mkdir -p -m 700 "$1" "$1/run"; chown -R "$2:$3" "$1"`, "sh", home,
		strconv.Itoa(benchUser.UID), strconv.Itoa(benchUser.GID))
}

// shareFUSE lets every user of this mount namespace use /dev/fuse, by a node in
// dir.
func shareFUSE(ctx context.Context, dir string) error {
	return command(ctx, "sh", "-ec", `mknod "$1/fuse" c 10 229; chmod 666 "$1/fuse"; mount --bind "$1/fuse" /dev/fuse`, "sh", dir)
}

// userEnvironment is benchUser's, in a home of makeHome.
func userEnvironment(home, libexec string) []string {
	return []string{"PATH=" + os.Getenv("PATH"), "HOME=" + home, "USER=" + benchUser.Name, "XDG_RUNTIME_DIR=" + home + "/run", "BERTH_LIBEXEC=" + libexec}
}

// endHolders ends what stands ready of benchUser.
func endHolders(ctx context.Context) {
	_ = command(ctx, "sh", "-c", "pkill -u "+strconv.Itoa(benchUser.UID)+" berth-standby; exit 0")
}

func (s *starter) end(ctx context.Context) {
	endHolders(ctx)
	for _, box := range s.boxes {
		box.Close()
	}
	_ = s.mounts.UnmountImage(ctx, imageName)
	s.mounts.Close()
	_ = os.RemoveAll(s.short)
}

func (s *starter) variants() []Variant {
	berth := filepath.Join(s.spec.Dir, "bin", "berth")
	binds := []string{"--ro-bind", s.folder, "/"}
	for _, path := range []string{"/proc", "/sys", "/dev", "/tmp", "/var/tmp"} {
		binds = append(binds, "--dev-bind", path, path)
	}
	return []Variant{
		{Name: bareExec, Args: []string{filepath.Join(s.folder, "bin", "true")}},
		{Name: join, Args: []string{"/bin/true"}},
		{Name: warmRun, Args: []string{berth, "run", s.image, "/bin/true"}},
		{Name: coldRun, Args: []string{berth, "run", "--no-reuse", s.image, "/bin/true"}},
		{Name: limitC, Args: []string{s.program("limit"), s.folder, "/bin/true"}},
		{Name: bwrap, Args: slices.Concat([]string{"bwrap"}, binds, []string{"/bin/true"})},
		{Name: chRun, Args: []string{"ch-run", s.folder, "--", "/bin/true"}},
		// podman raises limits, which root may not everywhere, and its word `host` does not stop it (4.3).
		{Name: podmanRun, Args: []string{
			"podman", "--root", s.home + "/podman", "--runroot", s.short, "--runtime", "crun", "--cgroup-manager", "cgroupfs",
			"run", "--rm", "--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1024:1024",
			"--network", "host", "--cgroups", "disabled", "--log-driver", "none", "--rootfs", s.folder + ":O", "/bin/true",
		}},
		{Name: create},
		{Name: minimal, Args: []string{s.program("minimal"), s.folder}},
	}
}

// available leaves out what can't be run here, with its first words.
func (s *starter) available(all []Variant, missing map[string]string) []Variant {
	return slices.DeleteFunc(all, func(v Variant) bool {
		if v.Name != create && v.Name != join {
			if _, err := exec.LookPath(v.Args[0]); err != nil {
				missing[v.Name] = err.Error()
				return true
			}
		}
		if r := s.once(context.Background(), v); r.Code != 0 {
			missing[v.Name] = r.Out
			return true
		}
		return false
	})
}

func (s *starter) once(ctx context.Context, v Variant) Sample {
	ctx, cancel := context.WithTimeout(ctx, oneRun)
	defer cancel()
	switch v.Name {
	case join:
		return s.run(ctx, Variant{Name: inBerth, Args: v.Args})
	case create:
		return s.timeCreate(ctx)
	}
	return execute(s.command(ctx, v))
}

// command is a variant's, as the user but for those that need root.
func (s *starter) command(ctx context.Context, v Variant) *exec.Cmd {
	cmd := exec.CommandContext(ctx, v.Args[0], v.Args[1:]...)
	cmd.Dir = "/"
	cmd.Env = userEnvironment(s.home, s.program(""))
	if v.Name != podmanRun && v.Name != minimal {
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(benchUser.UID), Gid: uint32(benchUser.GID)}}
	}
	return cmd
}

func (s *starter) timeCreate(ctx context.Context) Sample {
	begin := time.Now()
	box, err := s.create(ctx, inBerth)
	r := Sample{Wall: time.Since(begin).Seconds()}
	if err != nil {
		return Sample{Code: -1, Out: err.Error()}
	}
	box.Close()
	return r
}

// many runs a variant burst times, width at a time.
func (s *starter) many(ctx context.Context, v Variant) Sample {
	ctx, cancel := context.WithTimeout(ctx, oneRun)
	defer cancel()
	var (
		wait sync.WaitGroup
		mu   sync.Mutex
		all  Sample
	)
	turns := make(chan struct{}, width)
	begin := time.Now()
	for range burst {
		turns <- struct{}{}
		wait.Go(func() {
			defer func() { <-turns }()
			r := s.once(ctx, v)
			mu.Lock()
			defer mu.Unlock()
			all.CPU += r.CPU
			if r.Code != 0 {
				all.Code, all.Out = r.Code, r.Out
			}
		})
	}
	wait.Wait()
	all.Wall = time.Since(begin).Seconds()
	return all
}

// What of memory is measured.
const (
	managedMemory = "a container on a managed node"
	readyMemory   = "a holder of one that stands ready"
	taskMemory    = "a task in a container, more than a bare one"
)

// memory measures what the kernel has less of per container, task and holder.
func (s *starter) memory(ctx context.Context, into map[string][]Sample) error {
	const boxes, tasks, rounds = 32, 32, 5
	for range rounds {
		per, err := s.containerMemory(ctx, boxes)
		if err != nil {
			return err
		}
		into[managedMemory] = append(into[managedMemory], Sample{Variant: managedMemory, Round: len(into[managedMemory]), Wall: per})
		bare, err := s.taskMemory(tasks, func() *exec.Cmd {
			return s.command(ctx, Variant{Args: []string{filepath.Join(s.folder, "bin", "sleep"), "60"}})
		})
		if err != nil {
			return err
		}
		joined, err := s.taskMemory(tasks, func() *exec.Cmd { return s.task(ctx, s.boxes[inBerth], "/bin/sleep", "60") })
		if err != nil {
			return err
		}
		into[taskMemory] = append(into[taskMemory], Sample{Variant: taskMemory, Round: len(into[taskMemory]), Wall: joined - bare})
	}
	held, err := s.holderMemory(ctx)
	into[readyMemory] = append(into[readyMemory], Sample{Variant: readyMemory, Wall: held})
	return err
}

func (s *starter) containerMemory(ctx context.Context, n int) (float64, error) {
	before, err := used()
	if err != nil {
		return 0, err
	}
	var made []*launcher.Container
	for range n {
		box, err := s.create(ctx, inBerth)
		if err != nil {
			return 0, err
		}
		made = append(made, box)
	}
	after, err := used()
	for _, box := range made {
		box.Close()
	}
	return (after - before) / float64(n), err
}

func (s *starter) taskMemory(n int, task func() *exec.Cmd) (per float64, err error) {
	before, err := used()
	if err != nil {
		return 0, err
	}
	var all []*exec.Cmd
	for range n {
		cmd := task()
		if err = cmd.Start(); err != nil {
			break
		}
		all = append(all, cmd)
	}
	for _, cmd := range all {
		err = errors.Join(err, untilAsleep(cmd.Process.Pid))
	}
	after, uerr := used()
	for _, cmd := range all {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	}
	return (after - before) / float64(n), errors.Join(err, uerr)
}

// untilAsleep waits until a process has become `sleep`.
func untilAsleep(pid int) error {
	deadline := time.Now().Add(10 * time.Second)
	for time.Now().Before(deadline) {
		name, err := os.ReadFile(fmt.Sprintf("/proc/%d/comm", pid))
		if err != nil {
			return err
		}
		if string(name) == "sleep\n" {
			return nil
		}
		_ = unix.Nanosleep(&unix.Timespec{Nsec: 1e6}, nil)
	}
	return fmt.Errorf("process %d does not sleep", pid)
}

// holderMemory is what a holder has written: its program is in the page cache once.
func (s *starter) holderMemory(ctx context.Context) (float64, error) {
	out, err := exec.CommandContext(ctx, "sh", "-c", `for p in $(pgrep -u `+strconv.Itoa(benchUser.UID)+` berth-standby); do
		awk '/^(Private_Dirty):/ { n += $2 } END { print n * 1024 }' /proc/$p/smaps_rollup; exit; done`).Output()
	if err != nil {
		return 0, err
	}
	var bytes float64
	_, err = fmt.Sscan(string(out), &bytes)
	return bytes, err
}

// used is the memory that neither is free nor can be made so at once, in bytes.
func used() (float64, error) {
	text, err := os.ReadFile("/proc/meminfo")
	if err != nil {
		return 0, err
	}
	var sum float64
	for _, name := range []string{"AnonPages", "Shmem", "Slab", "KernelStack", "PageTables", "Percpu"} {
		kB, err := field(text, name)
		if err != nil {
			return 0, err
		}
		sum += kB * 1024
	}
	return sum, nil
}

func field(meminfo []byte, name string) (float64, error) {
	m := regexp.MustCompile(`(?m)^` + name + `:\s+(\d+) kB`).FindSubmatch(meminfo)
	if m == nil {
		return 0, fmt.Errorf("meminfo has no %s", name)
	}
	return strconv.ParseFloat(string(m[1]), 64)
}
