package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/berth-hpc/berth/cmd/internal/config"
	"github.com/berth-hpc/berth/fault"
	"github.com/berth-hpc/berth/imagecache"
	"github.com/berth-hpc/berth/imagecache/store"
	"github.com/berth-hpc/berth/prolog"
	"github.com/berth-hpc/berth/warm"
)

// A warmer gets images into a store.
type warmer interface {
	// resolve asks the registry which digest e's image has.
	resolve(ctx context.Context, e warm.Entry) (store.Digest, error)
	// has says whether e's image, which has a digest, is at hand.
	has(e warm.Entry) bool
	// warm has e's image at hand.
	warm(ctx context.Context, e warm.Entry, watch imagecache.ProgressFunc) (prolog.Warmed, error)
}

// warmer is root's way into the node's store, or a user's into their own.
func (c *warmCmd) warmer(s *session) (warmer, error) {
	if s.user.uid == 0 {
		site, err := s.site()
		return &nodeWarmer{s: s, site: site, rate: c.rate()}, err
	}
	cfg, err := s.settings()
	return &ownWarmer{s: s, cfg: cfg, rate: c.rate()}, err
}

// rate is each image's share.
func (l *warmLimits) rate() int64 { return int64(l.Rate) / int64(max(l.Parallel, 1)) }

// nodeWarmer has the node's account ask and pull, as for jobs.
type nodeWarmer struct {
	s    *session
	site prolog.Config
	rate int64
}

func (n *nodeWarmer) resolve(ctx context.Context, e warm.Entry) (store.Digest, error) {
	return prolog.Digested(ctx, n.s.log, n.site, prolog.Warming{Image: e.Name(), Platform: e.Platform})
}

func (n *nodeWarmer) has(e warm.Entry) bool {
	st, err := store.OpenExisting(n.site.StoreDir)
	if err != nil {
		return false
	}
	_, err = st.Get(e.Digest)
	return err == nil
}

func (n *nodeWarmer) warm(ctx context.Context, e warm.Entry, watch imagecache.ProgressFunc) (prolog.Warmed, error) {
	return prolog.Warm(ctx, n.s.log, n.site, prolog.Warming{
		Image: e.Name(), Digest: e.Digest, Rate: n.rate, Keep: e.Keep.From(time.Now()), Progress: watch,
	})
}

// ownWarmer is a user's.
type ownWarmer struct {
	s    *session
	cfg  *config.Config
	rate int64
}

func (o *ownWarmer) resolve(ctx context.Context, e warm.Entry) (store.Digest, error) {
	platform, err := imagecache.ParsePlatform(e.Platform)
	if err != nil {
		return store.Digest{}, err
	}
	return imagecache.Resolve(ctx, e.Ref, platform, o.s.network(o.cfg))
}

func (o *ownWarmer) has(e warm.Entry) bool {
	own, err := ownStore(o.cfg)
	if err != nil {
		return false
	}
	_, err = own.Get(e.Digest)
	return err == nil
}

func (o *ownWarmer) warm(ctx context.Context, e warm.Entry, watch imagecache.ProgressFunc) (done prolog.Warmed, err error) {
	own, err := ownStore(o.cfg)
	if err != nil {
		return done, err
	}
	space, err := ownSpace(o.cfg, own)
	if err != nil {
		return done, err
	}
	if k := e.Keep.From(time.Now()); k != nil {
		if err := own.Keep(e.Digest, prolog.WarmHolder, *k); err != nil {
			return done, err
		}
	}
	done.Hit = o.has(e)
	opts := fetchOptions(o.cfg, o.s.network(o.cfg))
	opts.Progress, opts.Space, opts.Rate = watch, space, o.rate
	ctx, cancel := deadline(ctx, o.cfg.Network.Deadline)
	defer cancel()
	if done.Image, err = imagecache.Pull(ctx, own, e.Digested(), opts); err == nil {
		_ = done.Image.Remember(e.Name()) // a full disk is no reason to fail
	}
	return done, err
}

// here has the entries for this machine at hand, some at once.
func (c *warmCmd) here(ctx context.Context, s *session, by warmer, entries []warm.Entry, result *warmResult) {
	report := c.newReport(s, result)
	defer report.end()
	mine := slices.DeleteFunc(slices.Clone(entries), func(e warm.Entry) bool {
		if e.ForMachine() {
			return false
		}
		other := imageOf(e)
		other.State = warmResolved
		result.Images = append(result.Images, other)
		return true
	})
	report.of(len(mine))
	if n := len(mine); n > 0 && c.Start > 0 {
		mine = append(mine[c.Start%n:], mine[:c.Start%n]...)
	}
	if missing := slices.ContainsFunc(mine, func(e warm.Entry) bool { return !by.has(e) }); missing && c.Spread > 0 {
		pause(ctx, rand.N(c.Spread))
	}
	var group sync.WaitGroup
	slots := make(chan struct{}, max(c.Parallel, 1))
	for i, e := range mine {
		slots <- struct{}{}
		group.Go(func() {
			defer func() { <-slots }()
			report.add(c.one(ctx, s, by, e, fmt.Sprintf("[%d/%d] %s", i+1, len(mine), e.Name()), report))
		})
	}
	group.Wait()
}

// one has one image at hand.
func (c *warmCmd) one(ctx context.Context, s *session, by warmer, e warm.Entry, what string, report *warmReport) warmedImage {
	im := imageOf(e)
	if err := context.Cause(ctx); err != nil {
		im.fail(fault.Wrap("warm", e.Name(), fault.Site, "run it again", err))
		return im
	}
	if !by.has(e) && !c.quiet(ctx) {
		im.State = warmPostponed
		s.log.Warnf("%s: left for the next run: the load is above --max-load", e.Name())
		return im
	}
	watch := func(imagecache.Progress) {}
	if c.Parallel <= 1 {
		show := s.newProgress(what)
		defer show.Close()
		watch = show.Update
	}
	report.begin(e.Name())
	began := time.Now()
	done, err := by.warm(ctx, e, watch)
	if err != nil {
		im.fail(err)
		return im
	}
	im.State = warmReady
	if !done.Hit {
		im.State, im.Seconds = warmPulled, time.Since(began).Seconds()
	}
	if info, err := os.Stat(done.Image.Rootfs()); err == nil {
		im.Bytes = info.Size()
	}
	return im
}

// quiet waits until the machine's load is low enough; false when that takes
// longer than --load-wait.
func (l *warmLimits) quiet(ctx context.Context) bool {
	if l.MaxLoad <= 0 {
		return true
	}
	ctx, cancel := context.WithTimeout(ctx, l.LoadWait)
	defer cancel()
	const look = 5 * time.Second
	for {
		if load, err := loadPerCPU(); err != nil || load <= l.MaxLoad {
			return true // who cannot tell does not wait
		}
		if pause(ctx, look); ctx.Err() != nil {
			return false
		}
	}
}

// loadPerCPU is the load of the last minute. The machine's CPUs count, not those
// that this process's job may use.
func loadPerCPU() (float64, error) {
	avg, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return 0, err
	}
	first, _, _ := strings.Cut(string(avg), " ")
	load, err := strconv.ParseFloat(first, 64)
	if err != nil {
		return 0, err
	}
	stat, err := os.ReadFile("/proc/stat")
	if err != nil {
		return 0, err
	}
	cpus := 0
	for line := range strings.Lines(string(stat)) {
		if rest, ok := strings.CutPrefix(line, "cpu"); ok && rest[0] != ' ' {
			cpus++
		}
	}
	if cpus == 0 {
		return 0, errors.New("/proc/stat names no CPU")
	}
	return load / float64(cpus), nil
}

func pause(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}
