package main

import (
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestPullAccounting: what a script's children do is counted, whether it
// stays or is removed.
func TestPullAccounting(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root may give the folder to another user")
	}
	site := pullSite{registry: "127.0.0.1:1", ca: "/none", work: filepath.Join(t.TempDir(), "home"), bin: "/none"}
	var fs unix.Statfs_t
	if err := unix.Statfs(t.TempDir(), &fs); err != nil || fs.Type == unix.TMPFS_MAGIC {
		t.Skipf("no disk: %v", err)
	}
	const mib = 1 << 20
	s, err := site.run(t.Context(), puller{script: `
		dd if=/dev/zero of="$HOME/kept" bs=1M count=3 status=none
		sh -c 'dd if=/dev/zero of="$HOME/gone" bs=1M count=4 status=none; rm "$HOME/gone"'
		dd if=/dev/zero of=/dev/null bs=40M count=1 status=none`}, "x:1")
	if err != nil || s.Code != 0 {
		t.Fatalf("%+v, %v", s, err)
	}
	if s.Written < 7*mib || s.Written > 8*mib {
		t.Errorf("%.0f bytes written", s.Written)
	}
	if s.RSS < 40*mib || s.CPU <= 0 || s.Wall <= 0 {
		t.Errorf("%+v", s)
	}
	if s, err := site.run(t.Context(), puller{script: "false"}, "x:1"); s.Code != 1 || err != nil {
		t.Errorf("a failure: %+v, %v", s, err)
	}
}

func TestPullersThatAreMissing(t *testing.T) {
	if why := (puller{needs: []string{"sh", "no-such-program"}}).missing(); !strings.Contains(why, "no-such-program") {
		t.Errorf("got %q", why)
	}
	if why := (puller{needs: []string{"sh"}}).missing(); why != "" {
		t.Errorf("got %q", why)
	}
}

// TestPullRounds: slow ones are pulled once, and no round but the first begins after the limit.
func TestPullRounds(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root may give the folder to another user")
	}
	site := pullSite{registry: "127.0.0.1:1", ca: "/none", work: filepath.Join(t.TempDir(), "home"), bin: "/none"}
	ps := []puller{{name: "fast", script: "true"}, {name: "slow", once: true, script: "true"}}
	for limit, want := range map[time.Duration]string{time.Hour: "fast0 slow0 fast1 fast2", 0: "fast0 slow0"} {
		samples, err := pullRounds(t.Context(), site, "x:1", ps, 3, limit)
		var got []string
		for _, s := range samples {
			got = append(got, fmt.Sprint(s.Variant, s.Round))
		}
		if strings.Join(got, " ") != want || err != nil {
			t.Errorf("within %v: %v, %v", limit, got, err)
		}
	}
}

func TestPullRow(t *testing.T) {
	samples := []Sample{
		{Variant: "a", Wall: 1, CPU: 10, RSS: 1 << 20, Written: 1e6},
		{Variant: "a", Wall: 3, CPU: 30, RSS: 3 << 20, Written: 3e6},
		{Variant: "a", Code: 1, Wall: 99},
		{Variant: "b", Code: 1, Out: "why"},
	}
	r := pullRow("a", samples)
	for i, want := range []float64{2, 20, 2, 2} {
		if r.Rounds() != 2 || math.Abs(r.Cells[i].Median-want) > 1e-9 {
			t.Errorf("%+v, want %v in column %d", r, want, i)
		}
	}
	text := Table{Title: "T", Columns: []string{"w", "c", "r", "b"}, Rows: []Row{r, pullRow("b", samples)}}.String()
	if !strings.Contains(text, "20.00") || !strings.Contains(text, "b: not measured: b ended with 1: why") {
		t.Errorf("got\n%s", text)
	}
}

// A way that is not installed has a row that says so, and so have the comparisons
// with it.
func TestPullShowsWhatIsMissing(t *testing.T) {
	samples := []Sample{{Variant: streams, Wall: 1, CPU: 1}}
	missing := map[string]string{podman: "podman is not installed"}
	b := &bench{}
	b.addTable(pullTable(largeImage, samples, missing))
	if err := b.pullTargets(largeImage, 1, samples, missing); err != nil {
		t.Error(err)
	}
	text := b.report.String()
	for _, want := range []string{"podman pull: not measured: podman is not installed", "pull science  CPU time  ", "skopeo, umoci, mksquashfs: not measured"} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q in\n%s", want, text)
		}
	}
}
