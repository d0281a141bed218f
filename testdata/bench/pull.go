package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"syscall"
	"time"
)

// Targets of a cold pull of the large image, and of a warm one.
const (
	mostCPU      = 0.6 // of podman's
	mostWall     = 1.0 // of podman's
	mostRSS      = 150 // MiB
	mostWritten  = 1.1 // of the finished image
	mostRequests = 1
	mostWarmCPU  = 30 // ms
	warmPulls    = 20
)

const (
	smallImage = "bio"
	largeImage = "science"
)

// pull compares what an image costs until it can be run, from a registry on
// this machine that speaks HTTPS, as root.
func (b *bench) pull(ctx context.Context) error {
	dir := filepath.Join(b.work, "pull")
	reg, err := startRegistry(ctx, b.work, dir, smallImage+":1", largeImage+":1")
	if err != nil {
		return err
	}
	defer reg.stop()
	site := pullSite{reg.host, reg.ca, filepath.Join(dir, "home"), filepath.Join(b.work, "bin")}
	for _, image := range []struct {
		name   string
		rounds int
		limit  time.Duration // after which no round begins
	}{
		{smallImage, max(b.rounds/6, 3), 4 * time.Second * time.Duration(b.rounds)},
		{largeImage, max(b.rounds/10, 1), 20 * time.Second * time.Duration(b.rounds)},
	} {
		if err := b.pullImage(ctx, site, image.name, image.rounds, image.limit); err != nil {
			return err
		}
	}
	if err := b.warmPulls(ctx, site, reg); err != nil {
		return err
	}
	return os.RemoveAll(dir)
}

func (b *bench) pullImage(ctx context.Context, site pullSite, image string, rounds int, limit time.Duration) error {
	missing := map[string]string{}
	var there []puller
	for _, p := range pullers() {
		if why := p.missing(); why != "" {
			missing[p.name] = why
			continue
		}
		there = append(there, p)
	}
	size, err := b.imageSize(ctx, site, image) // and what the registry reads is in memory
	if err != nil {
		return err
	}
	samples, err := pullRounds(ctx, site, image+":1", there, rounds, limit)
	if err != nil {
		return err
	}
	b.addTable(pullTable(image, samples, missing))
	return b.pullTargets(image, size, samples, missing)
}

// pullTable puts all ways beside each other, those that are missing too.
func pullTable(image string, samples []Sample, missing map[string]string) Table {
	t := Table{Title: "pull " + image, Columns: []string{"wall s", "CPU s", "RSS MiB", "written MB"}}
	for _, p := range pullers() {
		r := Row{Name: p.name, Missing: missing[p.name]}
		if r.Missing == "" {
			r = pullRow(p.name, samples)
		}
		r.Ours = p.ours
		t.Rows = append(t.Rows, r)
	}
	t.Rows = append(t.Rows, Row{Name: "enroot, apptainer", Missing: "not in Debian 12"})
	return t
}

// pullRounds pulls ref in turns. A round that was begun within limit is
// finished. The error is about the measuring; a pull that fails is a sample.
func pullRounds(ctx context.Context, site pullSite, ref string, ps []puller, rounds int, limit time.Duration) ([]Sample, error) {
	bounded, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	of := func(round int) []Variant {
		var vs []Variant
		for _, p := range ps {
			if round == 0 || !p.once {
				vs = append(vs, Variant{Name: p.name})
			}
		}
		return vs
	}
	var failed error
	samples := inTurns(bounded, rounds, of, func(v Variant) Sample {
		p := ps[slices.IndexFunc(ps, func(p puller) bool { return p.name == v.Name })]
		s, err := site.run(ctx, p, ref)
		failed = errors.Join(failed, err)
		return s
	})
	return samples, failed
}

func pullRow(name string, samples []Sample) Row {
	columns := make([][]float64, 4)
	r := Row{Name: name, Missing: "no round was measured"}
	for _, s := range samples {
		if s.Variant != name {
			continue
		}
		if s.Code != 0 {
			r.Missing = s.failure()
			continue
		}
		for i, v := range []float64{s.Wall, s.CPU, s.RSS / (1 << 20), s.Written / 1e6} {
			columns[i] = append(columns[i], v)
		}
	}
	if len(columns[0]) == 0 {
		return r
	}
	r.Missing = ""
	for _, c := range columns {
		r.Cells = append(r.Cells, summarize(c))
	}
	return r
}

// pullTargets holds the large image to the targets; of the small one the
// same is printed without.
func (b *bench) pullTargets(image string, size float64, samples []Sample, missing map[string]string) error {
	target := func(x float64) *Target {
		if image != largeImage {
			return nil
		}
		return most(x)
	}
	c := comparison{section: "pull " + image, unit: "s", base: podman, ours: streams, scale: 1, statistic: "ratio"}
	var failed error
	add := func(name string, most *Target, value func(Sample) (float64, bool)) {
		c.name, c.target = name, most
		failed = errors.Join(failed, b.unlessMissing(c, missing, samples, value))
	}
	add("CPU time", target(mostCPU), cpu)
	add("wall time", target(mostWall), wall)
	c.base, c.unit, c.statistic, c.scale = "", "MiB", "median", 1.0/(1<<20)
	add("largest process", target(mostRSS), func(s Sample) (float64, bool) { return s.RSS, true })
	c.unit, c.scale = "times", 1/size
	add("bytes written, of the finished image", target(mostWritten), func(s Sample) (float64, bool) { return s.Written, true })
	return failed
}

// imageSize pulls an image and returns the size of its file in bytes.
func (b *bench) imageSize(ctx context.Context, site pullSite, image string) (float64, error) {
	s, err := site.run(ctx, pullers()[0], image+":1")
	if err == nil && s.Code != 0 {
		err = fmt.Errorf("pull %s: %s", image, s.Out)
	}
	if err != nil {
		return 0, err
	}
	found, _ := filepath.Glob(filepath.Join(site.work, "user/.cache/berth/images/sha256/*/rootfs.sqfs")) // the pattern is fixed
	if len(found) != 1 {
		return 0, fmt.Errorf("%d images in the store, want one", len(found))
	}
	info, err := os.Stat(found[0])
	if err != nil {
		return 0, err
	}
	return float64(info.Size()), nil
}

// warmPulls pulls what is there. It ends the registry: only then are all
// requests in its log.
func (b *bench) warmPulls(ctx context.Context, site pullSite, reg *registryProcess) error {
	berth := pullers()[0]
	if _, err := site.run(ctx, berth, smallImage+":1"); err != nil {
		return err
	}
	before, err := reg.requests()
	if err != nil {
		return err
	}
	var samples []Sample
	for round := range warmPulls {
		s := site.again(ctx, berth, smallImage+":1")
		s.Variant, s.Round = streams, round
		samples = append(samples, s)
	}
	if err := reg.stop(); err != nil {
		return err
	}
	after, err := reg.requests()
	if err != nil {
		return err
	}
	c := comparison{section: "pull what is there", ours: streams, statistic: "median", scale: 1000, unit: "ms"}
	c.name, c.target = "CPU time", most(mostWarmCPU)
	failed := b.compare(c, samples, cpu)
	c.name, c.target = "wall time", nil
	failed = errors.Join(failed, b.compare(c, samples, wall))
	c.name, c.scale, c.unit, c.target = "requests to the registry", 1, "requests", most(mostRequests)
	each := float64(after-before) / warmPulls
	return errors.Join(failed, b.compare(c, samples, func(Sample) (float64, bool) { return each, true }))
}

// registryProcess is a registry on loopback, with a log.
type registryProcess struct {
	cmd           *exec.Cmd
	host, ca, log string
}

// startRegistry serves images that are in the cache or are built.
func startRegistry(ctx context.Context, programs, dir string, images ...string) (*registryProcess, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	r := &registryProcess{ca: filepath.Join(dir, "ca.pem"), log: filepath.Join(dir, "log")}
	ready := filepath.Join(dir, "ready")
	// Two after the other in one folder: images are pushed by plain HTTP.
	blobs := filepath.Join(dir, "registry")
	if err := r.start(ctx, ready, filepath.Join(programs, "registry"), "--dir", blobs, "--ready-file", ready); err != nil {
		return nil, err
	}
	push := append([]string{"push", "--registry", r.host}, images...)
	_, err := output(exec.CommandContext(ctx, filepath.Join(programs, "test-images"), push...), nil)
	if err := errors.Join(err, r.stop(), os.Remove(ready)); err != nil {
		return nil, err
	}
	return r, r.start(ctx, ready, filepath.Join(programs, "registry"), "--dir", blobs, "--ready-file", ready, "--ca-file", r.ca, "--log", r.log)
}

func (r *registryProcess) start(ctx context.Context, ready string, args ...string) error {
	r.cmd = exec.CommandContext(ctx, args[0], args[1:]...)
	r.cmd.Cancel = func() error { return r.cmd.Process.Signal(syscall.SIGTERM) }
	r.cmd.WaitDelay = 5 * time.Second
	r.cmd.Stderr = os.Stderr
	if err := r.cmd.Start(); err != nil {
		return err
	}
	tick, last := time.NewTicker(10*time.Millisecond), time.After(20*time.Second)
	defer tick.Stop()
	for {
		if host, err := os.ReadFile(ready); err == nil {
			r.host = string(bytes.TrimSpace(host))
			return nil
		}
		select {
		case <-tick.C:
		case <-last:
			return errors.Join(errors.New("the registry does not answer"), r.stop())
		case <-ctx.Done():
			return errors.Join(ctx.Err(), r.stop())
		}
	}
}

// stop ends the registry. A second call does nothing.
func (r *registryProcess) stop() error {
	if r.cmd.ProcessState != nil {
		return nil
	}
	return errors.Join(r.cmd.Process.Signal(syscall.SIGTERM), r.cmd.Wait())
}

// requests counts the lines of the log.
func (r *registryProcess) requests() (int, error) {
	raw, err := os.ReadFile(r.log)
	return bytes.Count(raw, []byte("\n")), err
}
