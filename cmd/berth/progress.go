package main

import (
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/berth-hpc/berth/imagecache"
	"golang.org/x/sys/unix"
)

// How often progress is shown: bars on a terminal, lines elsewhere. The first
// line comes after a full interval, so that quick commands stay silent.
const (
	barInterval  = 100 * time.Millisecond
	lineInterval = 5 * time.Second
)

// A progressView shows how a pull gets on. Update may be called from any
// goroutine; Close ends the display.
type progressView struct {
	out      io.Writer
	bar      bool
	interval time.Duration
	what     string
	now      func() time.Time

	mu     sync.Mutex
	layers map[int]imagecache.Progress // bytes of the phase at hand, by layer
	last   imagecache.Progress
	begin  time.Time // of the phase
	shown  time.Time
	drawn  bool // a bar stands on the terminal
}

// newProgress shows progress on stderr, as --progress asks for.
func (s *session) newProgress(what string) *progressView {
	v := &progressView{out: s.stderr, what: what, now: time.Now}
	switch mode := s.progress; {
	case mode == "none":
		v.out = io.Discard
	case mode == "bar", mode == "auto" && isTerminal(s.stderr):
		v.bar, v.interval = true, barInterval
	default:
		v.interval = lineInterval
	}
	v.shown = v.now()
	return v
}

func isTerminal(f *os.File) bool {
	_, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	return err == nil
}

// Update is an imagecache.ProgressFunc.
func (v *progressView) Update(p imagecache.Progress) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.layers == nil || p.Phase != v.last.Phase {
		if v.transferring() && p.Phase == imagecache.PhaseUnpack {
			return // it runs beside the transfer, which is what is waited for
		}
		v.layers, v.begin = map[int]imagecache.Progress{}, v.now()
	}
	v.last, v.layers[p.Layer] = p, p
	if now := v.now(); now.Sub(v.shown) >= v.interval {
		v.shown = now
		v.show()
	}
}

// transferring says whether layers are still on their way.
func (v *progressView) transferring() bool {
	return v.last.Phase == imagecache.PhasePull && v.finished() < v.last.Layers
}

// Close takes the bar off the terminal.
func (v *progressView) Close() {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.drawn {
		fmt.Fprint(v.out, "\r\x1b[K")
		v.drawn = false
	}
}

func (v *progressView) show() {
	if !v.bar {
		fmt.Fprintf(v.out, "berth: %s: %s\n", v.what, v.text())
		return
	}
	fmt.Fprintf(v.out, "\r\x1b[K%s  %s", v.what, v.text())
	v.drawn = true
}

// text says what is being done and how far it is.
func (v *progressView) text() string {
	done, total, known := v.sum()
	parts := []string{phaseText(v.last.Phase)}
	switch {
	case known && total > 0:
		if v.bar {
			parts = append(parts, drawBar(done, total))
		}
		parts = append(parts, fmt.Sprintf("%3d %% of %s", 100*done/total, megabytes(total)))
	case done > 0:
		parts = append(parts, megabytes(done))
	}
	if n := v.last.Layers; n > 1 && len(v.layers) > 0 {
		parts = append(parts, fmt.Sprintf("layers %d/%d", v.finished(), n))
	}
	if rate := v.rate(done); rate != "" {
		parts = append(parts, rate)
	}
	return strings.Join(parts, "  ")
}

// sum adds up the layers; known says whether all sizes are known.
func (v *progressView) sum() (done, total int64, known bool) {
	known = true
	for _, p := range v.layers {
		done, total = done+p.Done, total+p.Total
		known = known && p.Total > 0
	}
	return done, total, known && len(v.layers) >= v.last.Layers
}

func (v *progressView) finished() int {
	n := 0
	for _, p := range v.layers {
		if p.Layer > 0 && p.Total > 0 && p.Done >= p.Total {
			n++
		}
	}
	return n
}

func (v *progressView) rate(done int64) string {
	seconds := v.now().Sub(v.begin).Seconds()
	if done == 0 || seconds < 1 {
		return ""
	}
	return megabytes(int64(float64(done)/seconds)) + "/s"
}

func phaseText(p imagecache.Phase) string {
	switch p {
	case imagecache.PhaseResolve:
		return "asking for the digest"
	case imagecache.PhaseWait:
		return "waiting for another pull of the same image"
	case imagecache.PhasePull:
		return "pulling"
	case imagecache.PhaseUnpack:
		return "unpacking"
	case imagecache.PhaseSquash:
		return "compressing"
	case imagecache.PhasePush:
		return "pushing"
	case imagecache.PhaseSave:
		return "saving"
	case imagecache.PhasePublish:
		return "storing"
	}
	return string(p)
}

func drawBar(done, total int64) string {
	const width = 24
	n := int(width * min(done, total) / total)
	return "[" + strings.Repeat("#", n) + strings.Repeat(".", width-n) + "]"
}
