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
	"strings"
	"time"
)

// srun compares how long a warm `srun true` takes in the tiny image and bare.
func (b *bench) srun(ctx context.Context) error {
	const most = 60 // ms
	for i, shape := range []struct {
		name string
		args []string
	}{{"one task", tasks(1)}, {"32 tasks on one node", tasks(32)}, {"three nodes", []string{"-N3"}}} {
		samples, err := b.alternate(ctx, b.rounds, b.limit(),
			Variant{Name: "bare", Args: append(srun(shape.args...), "true")},
			Variant{Name: "container", Args: append(srun(shape.args...), image("tiny"), "true")})
		if err != nil {
			return err
		}
		c := comparison{
			section: "warm srun true", name: shape.name, unit: "ms", base: "bare", ours: "container",
			scale: 1000, statistic: "difference", target: most,
		}
		if err := b.compare(c, samples, wall); err != nil {
			return err
		}
		if i > 0 {
			continue
		}
		if err := b.parts(ctx); err != nil {
			return err
		}
	}
	return nil
}

// parts tells where the time of a warm start goes, as far as it is ours and
// can be seen from outside: what srun waits for, and what the step's helper
// logged of the one-task steps.
func (b *bench) parts(ctx context.Context) error {
	const section = "parts of a warm srun, one task"
	log, err := b.on(ctx, "n1", "root", nil, "cat", "/run/berth/step.log")
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
		l, err := c.line(logged(log, part.field), 0)
		if err != nil {
			return err
		}
		b.add(l)
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
	for _, shape := range []struct {
		name   string
		args   []string
		rounds int
		limit  time.Duration
	}{
		// Two ranks that poll are slow where they share two cores with others.
		{"one node", tasks(2), b.rounds, 3 * b.limit()},
		{"two nodes", []string{"-N2", "-n2"}, (b.rounds + 2) / 3, b.limit()},
	} {
		args := append(srun(shape.args...), "--mpi=pmix")
		samples, err := b.alternate(ctx, shape.rounds, shape.limit,
			Variant{Name: "bare", Args: append(args[:len(args):len(args)], "/opt/bench/mpi-pingpong")},
			Variant{Name: "container", Args: append(args[:len(args):len(args)], image("mpi"), "mpi-pingpong")})
		if err != nil {
			return err
		}
		latency := comparison{section: "MPI latency, 8 bytes", name: shape.name, unit: "µs", base: "bare", ours: "container", scale: 1, statistic: "ratio"}
		bandwidth := latency
		bandwidth.section, bandwidth.unit = "MPI bandwidth, 1 MiB", "MiB/s"
		if err := errors.Join(
			b.compare(latency, samples, printed("latency_us")),
			b.compare(bandwidth, samples, printed("bandwidth_mib_s")),
		); err != nil {
			return err
		}
	}
	return nil
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
	squashfs, err := b.converted(ctx, "python")
	if err != nil {
		return err
	}
	spec, err := json.Marshal(FileSpec{Dir: filepath.Join(b.work, "files"), Image: squashfs, Rounds: b.rounds, Cold: max(5, b.rounds/6), Limit: b.limit()})
	if err != nil {
		return err
	}
	// The mounts made there are nobody else's, and go with the process.
	out, err := output(exec.CommandContext(ctx, "unshare", "--mount", "--propagation=slave", filepath.Join(b.work, "bench"), "files"), spec)
	if err != nil {
		return err
	}
	var results map[string][]Sample
	if err := json.Unmarshal(out, &results); err != nil {
		return fmt.Errorf("read samples: %w", err)
	}
	return b.compareFiles(results)
}

// converted makes a node convert an image and returns its squashfs.
func (b *bench) converted(ctx context.Context, name string) (string, error) {
	const images = "machines/n1/root/var/lib/berth/images"
	if _, err := b.on(ctx, "ctl", "alice", nil, append(srun(tasks(1)...), image(name), "true")...); err != nil {
		return "", err
	}
	var found string
	err := filepath.WalkDir(filepath.Join(b.dir, images), func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.Name() != "record.json" {
			return err
		}
		record, err := os.ReadFile(path)
		if strings.Contains(string(record), registry+"/"+name+":1") {
			found = filepath.Join(filepath.Dir(path), "rootfs.sqfs")
		}
		return err
	})
	if err == nil && found == "" {
		err = fmt.Errorf("no node has an image of %s", name)
	}
	return found, err
}

func (b *bench) compareFiles(results map[string][]Sample) error {
	const python = "python3 -c 'import numpy, scipy.stats, pandas'"
	seconds := func(name, base, ours string, target float64) comparison {
		return comparison{section: name, name: ours + " against " + base, unit: "s", base: base, ours: ours, scale: 1, statistic: "ratio", target: target}
	}
	var failed []error
	add := func(c comparison, work string, value func(Sample) (float64, bool)) {
		failed = append(failed, b.compare(c, results[work], value))
	}
	add(seconds(python+", warm", inExt4, inBerth, 1), imports, wall)
	add(seconds(python+", warm, CPU time", inExt4, inBerth, 0), imports, cpu)
	add(seconds(python+", warm", inSquashfs, inBerth, 1.05), imports, wall)
	add(seconds(python+", warm, CPU time", inSquashfs, inBerth, 0), imports, cpu)
	for _, w := range []struct {
		work, name string
		target     float64 // against ext4
	}{{"find", "find /usr", 1.6}, {"stat", "ls -lnR /usr", 0}, {"read", "every file of /usr read", 1.25}} {
		add(seconds(w.name+", warm", inSquashfs, inBerth, 1.05), w.work, wall)
		add(seconds(w.name+", warm, CPU time", inSquashfs, inBerth, 0), w.work, cpu)
		add(seconds(w.name+", warm", inExt4, inBerth, w.target), w.work, wall)
	}
	add(seconds(python+", cold", inExt4, inBerth, 0), "cold", wall)
	return errors.Join(failed...)
}

// joinTimes is the file that clock/joinclock.c writes, below the cluster's folder.
const joinTimes = "shared/join.ns"

// join measures a task's join in slurmstepd, with a plugin that has a clock.
func (b *bench) join(ctx context.Context) error {
	if err := b.usePlugin("/opt/bench/timed/lib/berth/spank_berth.so"); err != nil {
		return err
	}
	for _, shape := range []struct {
		name   string
		tasks  int
		target float64
	}{{"1 task in a step", 1, 100}, {"8 tasks in a step", 8, 100}} {
		file := filepath.Join(b.dir, joinTimes)
		if err := os.Remove(file); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		v := Variant{Name: "container", Args: append(srun(tasks(shape.tasks)...), image("tiny"), "true")}
		if _, err := b.alternate(ctx, 2*b.rounds, b.limit(), v); err != nil {
			return err
		}
		if err := b.joinLines(file, shape.name, shape.target); err != nil {
			return err
		}
	}
	return nil
}

func (b *bench) joinLines(file, name string, target float64) error {
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
	c := comparison{section: "a task's join in task_init", name: name, unit: "µs", ours: "join", scale: 1e-3, statistic: "median", target: target}
	l, err := c.line(all, 0)
	if err != nil {
		return err
	}
	b.add(l)
	c.section, c.target = "of that, entering the namespaces", 0
	if l, err = c.line(entering, 0); err != nil {
		return err
	}
	b.add(l)
	return nil
}
