package main

import (
	"fmt"
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
		line  string // what is printed by lines
		bars  string // what stands on the terminal
	}{
		{0, imagecache.Progress{Phase: imagecache.PhaseResolve}, "", ""},
		{0, pull(1, 0, 40e6), "", ""},
		{time.Second, pull(2, 0, 10e6), "", "x  pulling  [........................]    0 % of 50.0 MB"},
		{time.Second, pull(1, 10e6, 40e6), "", "  layer 1  [######..................]   25 % of 40.0 MB  5.0 MB/s  6 s left\nx  pulling  [####....................]   20 % of 50.0 MB  layers 0/2  5.0 MB/s  8 s left"},
		{time.Second, pull(2, 2e6, 10e6), "", "  layer 1  [######..................]   25 % of 40.0 MB  3.3 MB/s  9 s left\n  layer 2  [####....................]   20 % of 10.0 MB  1.0 MB/s  8 s left\nx  pulling  [#####...................]   24 % of 50.0 MB  layers 0/2  4.0 MB/s  10 s left"},
		{time.Second, pull(2, 10e6, 10e6), "", "  layer 1  [######..................]   25 % of 40.0 MB  2.5 MB/s  12 s left\nx  pulling  [#########...............]   40 % of 50.0 MB  layers 1/2  5.0 MB/s  6 s left"},
		{time.Second, imagecache.Progress{Phase: imagecache.PhaseUnpack, Layer: 2, Layers: 2}, "pulling 1 of 2 layers, 20 of 50 MB, 4.0 MB/s, 8 s left", "  layer 1  [######..................]   25 % of 40.0 MB  2.0 MB/s  15 s left\nx  pulling  [#########...............]   40 % of 50.0 MB  layers 1/2  4.0 MB/s  8 s left"},
		{5 * time.Second, pull(1, 40e6, 40e6), "pulling 2 of 2 layers, 50 of 50 MB, 5.0 MB/s", "x  pulling  [########################]  100 % of 50.0 MB  layers 2/2  5.0 MB/s"},
		{time.Second, imagecache.Progress{Phase: imagecache.PhaseUnpack, Layer: 2, Layers: 2, Done: 5e6}, "", "x  unpacking  5.0 MB  layers 0/2"},
		{time.Second, imagecache.Progress{Phase: imagecache.PhaseSquash}, "", "x  compressing"},
		{4 * time.Second, imagecache.Progress{Phase: imagecache.PhaseSquash, Done: 8e6, Total: 16e6}, "compressing 8.0 of 16 MB, 2.0 MB/s, 4 s left", "x  compressing  [############............]   50 % of 16.0 MB  2.0 MB/s  4 s left"},
	}
	for _, bar := range []bool{true, false} {
		var out strings.Builder
		shows := &screen{}
		c := &clock{at: time.Unix(0, 0)}
		v := &progressView{out: &out, what: "x", now: c.now, width: func() int { return 200 }, shown: c.at, bar: bar, interval: lineInterval}
		v.meter.Now = c.now
		if bar {
			v.interval = barInterval
		}
		for i, s := range steps {
			c.at = c.at.Add(s.after)
			out.Reset()
			v.Update(s.p)
			want, got := s.line, strings.TrimSuffix(strings.TrimPrefix(out.String(), "berth: x: "), "\n")
			if bar {
				shows.write(out.String())
				want, got = s.bars, shows.String()
			}
			if got != want {
				t.Errorf("bar %v, step %d:\n%q\n%q is wanted", bar, i, got, want)
			}
		}
		out.Reset()
		v.Close()
		shows.write(out.String())
		if bar && shows.String() != "" || !bar && out.Len() > 0 {
			t.Errorf("bar %v: Close left %q", bar, shows.String())
		}
	}
}

// A screen knows as much as bars need: lines, up, erase to the end.
type screen struct {
	lines []string
	row   int
}

func (s *screen) write(text string) {
	for text != "" {
		if s.lines == nil {
			s.lines = []string{""}
		}
		var up int
		switch {
		case strings.HasPrefix(text, "\r\x1b[J"):
			s.lines = append(s.lines[:s.row], "")
			text = text[4:]
		case text[0] == 0x1b:
			n, _ := fmt.Sscanf(text, "\x1b[%dA", &up)
			if s.row -= up; n != 1 || s.row < 0 {
				panic("above the bars: " + text)
			}
			text = text[strings.IndexByte(text, 'A')+1:]
		case text[0] == '\n':
			s.row++
			s.lines = append(s.lines, "")
			text = text[1:]
		default:
			s.lines[s.row] += text[:1]
			text = text[1:]
		}
	}
}

// String returns what stands there.
func (s *screen) String() string { return strings.Join(s.lines, "\n") }

// A line that wraps could not be taken away again.
func TestBarsFitTheTerminal(t *testing.T) {
	var out strings.Builder
	c := &clock{at: time.Unix(0, 0)}
	v := &progressView{out: &out, what: strings.Repeat("long/", 40), now: c.now, width: func() int { return 40 }, bar: true}
	for i := range 3 {
		v.Update(imagecache.Progress{Phase: imagecache.PhasePull, Layer: i + 1, Layers: 3, Done: 5, Total: 10})
	}
	for _, line := range strings.FieldsFunc(out.String(), func(r rune) bool { return r == '\n' || r == '\r' || r == 0x1b }) {
		if len(line) > 39+len("[J") {
			t.Errorf("%d columns: %q", len(line), line)
		}
	}
}
