package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
)

// The sides of comparisons on the cluster.
const (
	bare        = "bare"
	inContainer = "container"
)

// A shape is a step that is started.
type shape struct {
	name string
	args []string
}

func srunShapes() []shape {
	return []shape{
		{"1 task", tasks(1)},
		{"3 tasks on one node", tasks(3)},
		{"32 tasks on one node", tasks(32)},
		{"3 tasks on three nodes", []string{"-N3"}},
	}
}

// srun compares how long a warm `srun true` takes in the tiny image and bare.
func (b *bench) srun(ctx context.Context) error {
	const mostMore = 60 // ms
	var failed error
	for _, shape := range srunShapes() {
		samples, err := b.alternate(ctx, b.rounds, b.limit(),
			Variant{Name: bare, Args: append(srun(shape.args...), "true")},
			Variant{Name: inContainer, Args: append(srun(shape.args...), image("tiny"), "true")})
		if err != nil {
			return err
		}
		failed = errors.Join(failed, b.compare(comparison{
			section: "warm srun true", name: shape.name, unit: "ms", base: bare, ours: inContainer,
			scale: 1000, statistic: "difference", target: most(mostMore),
		}, samples, wall))
		if shape.name == "1 task" {
			failed = errors.Join(failed, b.parts(ctx))
		}
	}
	return failed
}

// submit compares how long it takes to submit a job with an image that was asked
// for within the last ten minutes, and counts what the registry is asked. The
// jobs are held, so that no node asks.
func (b *bench) submit(ctx context.Context) error {
	job := []string{"sbatch", "-Q", "--parsable", "--hold", "-o", "/dev/null", "--wrap", "true"}
	vs := []Variant{{Name: bare, Args: job}, {Name: inContainer, Args: append(job[:len(job):len(job)], image("tiny"))}}
	var requests []pair
	var failed error
	bounded, cancel := context.WithTimeout(ctx, 2*b.limit())
	defer cancel()
	samples := interleave(bounded, b.rounds, vs, func(v Variant) Sample {
		before, err := b.site.requests()
		s := b.site.once(ctx, v, nil)
		after, err2 := b.site.requests()
		failed = errors.Join(failed, err, err2)
		if v.Name == inContainer {
			requests = append(requests, pair{ours: float64(after - before)})
		}
		return s
	})
	_, err := b.site.on(ctx, oneRun, "ctl", "alice", nil, "scancel", "-u", "alice")
	if n, _ := b.site.requests(); n == 0 { // at least this asked, or something before
		failed = errors.Join(failed, errors.New("the registry's log is empty"))
	}
	c := comparison{section: "sbatch of a job with an image that is known", name: "time", unit: "ms", base: bare, ours: inContainer, scale: 1000, statistic: "difference"}
	failed = errors.Join(failed, err, b.compare(c, samples, wall))
	c.name, c.unit, c.base, c.scale, c.statistic, c.target = "requests to the registry, the most of one", "requests", "", 1, "most", most(0)
	b.add(c.line(requests[1:], 0, "")) // the first one warms up: it asks
	return failed
}

// parts tells where the time of a warm start goes, as far as it is ours and
// can be seen from outside: what srun waits for, and what the step's helper
// logged of the one-task steps.
func (b *bench) parts(ctx context.Context) error {
	const section = "parts of a warm srun, one task"
	log, err := b.site.on(ctx, oneRun, "n1", "root", nil, "cat", "/run/berth/step.log")
	if err != nil {
		return err
	}
	samples, err := b.alternate(ctx, b.rounds, b.limit(), Variant{Name: "berth", Args: []string{"berth", "resolve", registry + "/tiny:1"}})
	if err != nil {
		return err
	}
	c := comparison{section: section, unit: "ms", ours: "berth", scale: 1000, statistic: "median"}
	c.name = "srun: berth resolve"
	if err := b.compare(c, samples, wall); err != nil {
		return err
	}
	for _, part := range []struct{ field, name string }{
		{"waited_s", "node: the step waits for the image after the prolog"},
		{"create_s", "node: the container is made"},
	} {
		c.name = part.name
		b.add(c.line(logged(log, part.field), 0, "step.log has no "+part.field))
	}
	return nil
}

// logged takes the numbers of a field out of a log.
func logged(log []byte, field string) []pair {
	var ps []pair
	for _, m := range regexp.MustCompile(`\b`+field+`="?([0-9.]+)`).FindAllSubmatch(log, -1) {
		if v, err := strconv.ParseFloat(string(m[1]), 64); err == nil {
			ps = append(ps, pair{ours: v})
		}
	}
	return ps
}

// mpi compares latency and bandwidth between two ranks of the image's Open MPI
// with those of the host's, which runs the same source.
func (b *bench) mpi(ctx context.Context) error {
	const asGood, pairs = 1.03, 30
	var failed error
	for _, shape := range []shape{{"one node", tasks(2)}, {"two nodes", []string{"-N2", "-n2"}}} {
		args := append(srun(shape.args...), "--mpi=pmix")
		// Two ranks that poll are slow where they share two cores with others, and
		// the host's own runs crash at times: some rounds more than are needed.
		samples, err := b.alternate(ctx, b.rounds+b.rounds/5, 4*b.limit(),
			Variant{Name: bare, Args: append(args[:len(args):len(args)], "/opt/bench/mpi-pingpong")},
			Variant{Name: inContainer, Args: append(args[:len(args):len(args)], image("mpi"), "mpi-pingpong")})
		if err != nil {
			return err
		}
		c := comparison{
			section: "MPI, one way", unit: "µs", base: bare, ours: inContainer, scale: 1, statistic: "ratio",
			target: &Target{Most: asGood, Within: true, Pairs: pairs},
		}
		c.name = "8 bytes, " + shape.name
		failed = errors.Join(failed, b.compare(c, samples, printed("latency_us")))
		c.name = "1 MiB, " + shape.name
		perMiB := func(s Sample) (float64, bool) {
			rate, ok := printed("bandwidth_mib_s")(s)
			return 1e6 / rate, ok && rate > 0
		}
		failed = errors.Join(failed, b.compare(c, samples, perMiB))
	}
	return failed
}

// printed reads NAME=NUMBER out of what a run printed.
func printed(name string) func(Sample) (float64, bool) {
	pattern := regexp.MustCompile(`\b` + name + `=([0-9.]+)`)
	return func(s Sample) (float64, bool) {
		m := pattern.FindStringSubmatch(s.Out)
		if m == nil {
			return 0, false
		}
		v, err := strconv.ParseFloat(m[1], 64)
		return v, err == nil
	}
}

// files compares the file systems that a container can have.
func (b *bench) files(ctx context.Context) error {
	squashfs := filepath.Join(b.work, "files", "python.sqsh")
	if err := b.save(ctx, filepath.Join(b.top, "build"), "python", squashfs); err != nil {
		return err
	}
	spec, err := json.Marshal(FileSpec{Dir: filepath.Join(b.work, "files"), Image: squashfs, Rounds: b.rounds, Cold: min(max(5, b.rounds/6), b.rounds), Limit: b.limit()})
	if err != nil {
		return err
	}
	// The mounts made there are nobody else's, and go with the process.
	out, err := output(exec.CommandContext(ctx, "unshare", "--mount", "--propagation=slave", filepath.Join(b.work, "bench"), "files"), spec)
	if err != nil {
		return err
	}
	var r FileResult
	if err := json.Unmarshal(out, &r); err != nil {
		return fmt.Errorf("read samples: %w", err)
	}
	return b.compareFiles(r)
}

// save has a build convert an image of the cache to a squashfs file, as a node does.
func (b *bench) save(ctx context.Context, build, name, file string) error {
	cmd := exec.CommandContext(ctx, filepath.Join(build, "bin/berth"), "save", "oci:"+filepath.Join(os.Getenv("BERTH_TEST_CACHE"), "images", name), file)
	cmd.Env = append(os.Environ(), "HOME="+filepath.Dir(b.work))
	_, err := output(cmd, nil)
	return err
}

func (b *bench) compareFiles(r FileResult) error {
	const python = "python3 -c 'import numpy, scipy.stats, pandas'"
	var failed error
	add := func(work, section string, base, ours string, value func(Sample) (float64, bool), target *Target) {
		c := comparison{section: section, name: ours + " against " + base, unit: "s", base: base, ours: ours, scale: 1, statistic: "ratio", target: target}
		failed = errors.Join(failed, b.unlessMissing(c, r.Missing, r.Samples[work], value))
	}
	for _, w := range []struct {
		work, name string
		ext4       *Target
	}{{imports, python, most(1)}, {"find", "find /usr", most(1.6)}, {"stat", "ls -lnR /usr", nil}, {"read", "every file of /usr read", most(1.25)}} {
		add(w.work, w.name+", warm", inSquashfs, inBerth, wall, most(1.05))
		add(w.work, w.name+", warm, CPU time", inSquashfs, inBerth, cpu, nil)
		add(w.work, w.name+", warm", inExt4, inBerth, wall, w.ext4)
		add(w.work, w.name+", warm, CPU time", inExt4, inBerth, cpu, nil)
		add(w.work, w.name+", warm", inFUSE, inBerth, wall, nil)
	}
	add("cold", python+", cold", inExt4, inBerth, wall, nil)
	return failed
}

// joinTimes is the file that clock/joinclock.c writes, below the cluster's folder.
const joinTimes = "shared/join.ns"

// join measures a task's join in slurmstepd, with a plugin that has a clock.
func (b *bench) join(ctx context.Context) error {
	if err := b.site.usePlugin("/opt/bench/timed/lib/berth/spank_berth.so"); err != nil {
		return err
	}
	for _, shape := range []struct {
		name  string
		tasks int
	}{{"1 task in a step", 1}, {"8 tasks in a step", 8}} {
		file := filepath.Join(b.site.dir, joinTimes)
		if err := os.Remove(file); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		v := Variant{Name: inContainer, Args: append(srun(tasks(shape.tasks)...), image("tiny"), "true")}
		if _, err := b.alternate(ctx, 2*b.rounds, b.limit(), v); err != nil {
			return err
		}
		if err := b.joinLines(file, shape.name); err != nil {
			return err
		}
	}
	return nil
}

func (b *bench) joinLines(file, name string) error {
	const mostJoin = 100 // µs
	data, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	var all, entering []pair
	for line := range bytes.Lines(data) {
		var total, enter float64
		if _, err := fmt.Sscan(string(line), &total, &enter); err != nil {
			return fmt.Errorf("read %s: %w", file, err)
		}
		all, entering = append(all, pair{ours: total}), append(entering, pair{ours: enter})
	}
	c := comparison{section: "a task's join in task_init", name: name, unit: "µs", ours: "join", scale: 1e-3, statistic: "median", target: most(mostJoin)}
	b.add(c.line(all, 0, "no task joined"))
	c.section, c.target = "of that, entering the namespaces", nil
	b.add(c.line(entering, 0, "no task joined"))
	return nil
}
