package main

import (
	"strings"
	"testing"
	"time"

	"github.com/berth-hpc/berth/imagecache"
)

// A clock that moves when it is told to.
type clock struct{ at time.Time }

func (c *clock) now() time.Time { return c.at }

func TestProgress(t *testing.T) {
	pull := func(layer int, done, total int64) imagecache.Progress {
		return imagecache.Progress{Phase: imagecache.PhasePull, Layer: layer, Layers: 2, Done: done, Total: total}
	}
	steps := []struct {
		after time.Duration
		p     imagecache.Progress
		lines string // what is printed by lines
		bar   string // the last state of the bar
	}{
		{0, imagecache.Progress{Phase: imagecache.PhaseResolve}, "", ""},
		{time.Second, pull(1, 10e6, 40e6), "", "pulling  10.0 MB  layers 0/2"},
		{time.Second, pull(2, 10e6, 10e6), "", "pulling  [#########...............]   40 % of 50.0 MB  layers 1/2  20.0 MB/s"},
		{time.Second, imagecache.Progress{Phase: imagecache.PhaseUnpack, Layer: 2, Layers: 2}, "", "pulling  [#########...............]   40 % of 50.0 MB  layers 1/2  20.0 MB/s"},
		{3 * time.Second, pull(1, 40e6, 40e6), "pulling  100 % of 50.0 MB  layers 2/2  10.0 MB/s", "pulling  [########################]  100 % of 50.0 MB  layers 2/2  10.0 MB/s"},
		{time.Second, imagecache.Progress{Phase: imagecache.PhaseUnpack, Layer: 2, Layers: 2, Done: 5e6}, "", "unpacking  5.0 MB  layers 0/2"},
		{time.Second, imagecache.Progress{Phase: imagecache.PhaseSquash}, "", "compressing"},
		{4 * time.Second, imagecache.Progress{Phase: imagecache.PhaseSquash, Done: 8e6, Total: 16e6}, "compressing   50 % of 16.0 MB  2.0 MB/s", "compressing  [############............]   50 % of 16.0 MB  2.0 MB/s"},
	}
	for _, bar := range []bool{true, false} {
		var out strings.Builder
		c := &clock{at: time.Unix(0, 0)}
		v := &progressView{out: &out, what: "x", now: c.now, shown: c.at, bar: bar, interval: lineInterval}
		if bar {
			v.interval = barInterval
		}
		shown := ""
		for i, s := range steps {
			c.at = c.at.Add(s.after)
			out.Reset()
			v.Update(s.p)
			want := s.lines
			got := strings.TrimSuffix(strings.TrimPrefix(out.String(), "berth: x: "), "\n")
			if bar {
				if out.Len() > 0 {
					shown = strings.TrimPrefix(out.String(), "\r\x1b[Kx  ")
				}
				want, got = s.bar, shown
			}
			if got != want {
				t.Errorf("bar %v, step %d:\n%q\n%q is wanted", bar, i, got, want)
			}
		}
		out.Reset()
		v.Close()
		if bar != (out.String() == "\r\x1b[K") {
			t.Errorf("bar %v: Close printed %q", bar, out.String())
		}
	}
}
