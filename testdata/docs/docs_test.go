package docs

import (
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/berth-hpc/berth/testdata/deploy"
)

func documents(t *testing.T) []Document {
	t.Helper()
	all, err := ReadAll(deploy.Root())
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// TestDocuments types the commands of all documents, each from its begin to
// its end, as alice on the submit host and as root on a node, and compares what
// they print with what is shown.
func TestDocuments(t *testing.T) {
	site := newSite(t)
	t.Run("options", func(t *testing.T) { checkOptions(t, site.MustRun(t.Context(), "n1", "alice", "srun", "--help")) })
	for _, d := range documents(t) {
		var run []Block
		for _, b := range d.Blocks {
			if b.Language == "console" && b.NotRun == "" {
				run = append(run, b)
			}
		}
		if len(run) == 0 {
			continue
		}
		t.Run(d.Name, func(t *testing.T) {
			site.MustRun(t.Context(), "ctl", "alice", "sh", "-c", "find ~ -mindepth 1 -maxdepth 1 ! -name .cache -exec rm -rf {} +")
			s := &session{Cluster: site, t: t, doc: d}
			for _, b := range run {
				begin := time.Now()
				s.block(b)
				t.Logf("%s:%d: %.1f s", d.Name, b.Line, time.Since(begin).Seconds())
			}
			site.MustRun(t.Context(), "ctl", "root", "scancel", "-u", "alice")
			site.With(t).WaitIdle()
		})
	}
}

// typed finds what looks like a command that somebody is to type.
var typed = regexp.MustCompile(`^([$#] +)?((build|/opt/berth)/bin/)?(berth|srun|sbatch|salloc|scontrol|squeue|qsub|mpirun|make|go|podman|docker|systemctl|install|umount|mount|rm|ln|useradd|apt-get|clush|unshare) `)

// TestCommandsAreMarked keeps commands out of blocks that no test runs: they
// stand in blocks of language console, and what is not run has a reason.
func TestCommandsAreMarked(t *testing.T) {
	ran := 0
	for _, d := range documents(t) {
		for _, b := range d.Blocks {
			switch {
			case b.NotRun != "":
				t.Logf("%s:%d is not run: %s", d.Name, b.Line, b.NotRun)
			case b.Language == "console":
				ran++
			default:
				for line := range strings.Lines(b.Text) {
					if typed.MatchString(strings.TrimSpace(line)) {
						t.Errorf("%s:%d: %q in a block that is not of language console", d.Name, b.Line, line)
					}
				}
			}
		}
	}
	if ran < 1 {
		t.Errorf("only %d blocks are run: is the search still right?", ran)
	}
}

// checkOptions compares the options of containers that documents name, anywhere,
// with those that the plugin offers.
func checkOptions(t *testing.T, help string) {
	t.Helper()
	option := regexp.MustCompile(`--(no-)?container-[a-z-]+[a-z]`)
	for _, d := range documents(t) {
		check := func(line int, text string) {
			for _, name := range option.FindAllString(text, -1) {
				if !regexp.MustCompile(name + `\b[^-]`).MatchString(help) {
					t.Errorf("%s:%d: srun has no option %s", d.Name, line, name)
				}
			}
		}
		for _, b := range d.Blocks {
			check(b.Line, b.Text)
		}
		for _, s := range d.Spans {
			check(s.Line, s.Text)
		}
	}
}
