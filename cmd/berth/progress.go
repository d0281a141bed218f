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
	width    func() int // of the terminal

	mu    sync.Mutex
	meter imagecache.Meter
	shown time.Time
	lines int // that stand on the terminal
}

// newProgress shows progress on stderr, as --progress asks for.
func (s *session) newProgress(what string) *progressView {
	v := &progressView{out: s.stderr, what: what, now: time.Now, width: s.terminalWidth}
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
	v.meter.Update(p)
	if now := v.now(); now.Sub(v.shown) >= v.interval {
		v.shown = now
		v.show()
	}
}

// Close takes the bars off the terminal.
func (v *progressView) Close() {
	v.mu.Lock()
	defer v.mu.Unlock()
	fmt.Fprint(v.out, v.erase())
}

// erase is what takes away the lines that stand on the terminal.
func (v *progressView) erase() string {
	if v.lines == 0 {
		return ""
	}
	text := "\r\x1b[J"
	if v.lines > 1 {
		text = fmt.Sprintf("\x1b[%dA", v.lines-1) + text
	}
	v.lines = 0
	return text
}

// show prints a line, or draws a bar for each layer on its way and one for all.
func (v *progressView) show() {
	s := v.meter.Status()
	if !v.bar {
		parts := []string{phaseText(s.Phase), s.String()}
		fmt.Fprintf(v.out, "berth: %s: %s\n", v.what, strings.TrimRight(strings.Join(parts, " "), " "))
		return
	}
	var lines []string
	if s.Layers > 1 {
		for _, l := range s.Flight {
			lines = append(lines, bar(fmt.Sprintf("  layer %d", l.Layer), l.Amount, ""))
		}
	}
	layers := ""
	if s.Layers > 1 && s.Done > 0 {
		layers = fmt.Sprintf("layers %d/%d", s.Finished, s.Layers)
	}
	lines = append(lines, bar(v.what+"  "+phaseText(s.Phase), s.Amount, layers))
	v.draw(lines)
}

// draw puts lines in the place of those that stand on the terminal.
func (v *progressView) draw(lines []string) {
	width := v.width()
	for i, line := range lines {
		lines[i] = line[:min(len(line), width-1)] // one that wraps could not be taken away
	}
	text := v.erase() + strings.Join(lines, "\n")
	v.lines = len(lines)
	fmt.Fprint(v.out, text)
}

// bar says in one line how far a is.
func bar(what string, a imagecache.Amount, layers string) string {
	parts := []string{what}
	switch {
	case a.Total > 0:
		parts = append(parts, drawBar(a.Done, a.Total), fmt.Sprintf("%3d %% of %s", 100*a.Done/a.Total, megabytes(a.Total)))
	case a.Done > 0:
		parts = append(parts, megabytes(a.Done))
	}
	if layers != "" {
		parts = append(parts, layers)
	}
	return strings.Join(append(parts, a.Pace()...), "  ")
}

// terminalWidth is that of stderr in columns.
func (s *session) terminalWidth() int {
	size, err := unix.IoctlGetWinsize(int(s.stderr.Fd()), unix.TIOCGWINSZ)
	if err != nil || size.Col == 0 {
		return 80
	}
	return int(size.Col)
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
