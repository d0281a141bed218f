package main

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/berth-hpc/berth/testdata/images"
	"github.com/rogpeppe/go-internal/testscript"
)

// A documented message is one of docs/troubleshooting.md.
type documented struct {
	message string // with blanks
	section string
	who     string
}

// documentedMessages reads the tables of docs/troubleshooting.md: the messages
// in the first column of each, in backticks.
func documentedMessages(t *testing.T) (all []documented) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(root, "docs", "troubleshooting.md"))
	if err != nil {
		t.Fatal(err)
	}
	section, table := "", false
	for line := range strings.Lines(string(text)) {
		if title, ok := strings.CutPrefix(line, "## "); ok {
			section = strings.TrimSpace(title)
		}
		cells := strings.Split(strings.Trim(strings.TrimSpace(line), "|"), " | ")
		switch {
		case !strings.HasPrefix(line, "|"):
			table = false
		case strings.TrimSpace(cells[0]) == "message":
			table = true
		case table:
			for _, m := range regexp.MustCompile("``? ?(.+?) ?``?").FindAllStringSubmatch(cells[0], -1) {
				all = append(all, documented{m[1], section, strings.TrimSpace(cells[len(cells)-1])})
			}
		}
	}
	if len(all) < 100 {
		t.Fatalf("only %d messages were found: are the tables still read?", len(all))
	}
	return all
}

// What docs/troubleshooting.md quotes is what the programs say: its words stand
// in their sources, or, where they are the kernel's, the network's or Slurm's,
// in theirs. Nothing else has these words, so that this test notices when a
// message is changed.
func TestDocumentedMessagesExist(t *testing.T) {
	ours, machine, slurm := berthSays(t), machineSays(t), slurmSays(t)
	for _, d := range documentedMessages(t) {
		others := machine
		if strings.Contains(d.section, "Slurm") {
			if others = slurm; others == nil {
				t.Log("no Slurm here: its words are not looked for")
				continue
			}
		}
		if !isSaid(d.message, ours, others) {
			t.Errorf("%q (%s) is nobody's message", d.message, d.section)
		}
		if other := withoutLongest(d.message); isSaid(other, ours, others) {
			t.Errorf("%q (%s) is no better than %q: have it say more", d.message, d.section, other)
		}
	}
}

// isSaid reports whether a message is somebody's, by more than a word of it.
func isSaid(message string, ours, others wordings) bool {
	return mostLetters(find(message, ours, others)) >= min(8, letters(message))
}

// withoutLongest is a message with another word for its longest one.
func withoutLongest(message string) string {
	words := regexp.MustCompile(`\pL+`).FindAllString(message, -1)
	longest := slices.MaxFunc(words, func(a, b string) int { return len(a) - len(b) })
	return strings.Replace(message, longest, "somethingelse", 1)
}

// TestTroubleshootingScripts runs testdata/troubleshooting/*.txtar as
// TestRunScripts does. Their word says runs a command that fails with the exit
// status given, and whose message has to be in docs/troubleshooting.md, with
// whoever that status blames.
func TestTroubleshootingScripts(t *testing.T) {
	shell, err := images.ReadLayout(images.Layout(t, "tiny"), images.Tag)
	if err != nil {
		t.Fatal(err)
	}
	book := &handbook{messages: documentedMessages(t)}
	libexec := buildTools(t)
	t.Run("scripts", func(t *testing.T) {
		runScripts(t, "testdata/troubleshooting", shell, libexec, "666", scriptWords{"says": book.says})
	})
	nothingRuns(t)
	if n := len(book.seen); os.Getuid() == 0 && n < 50 {
		t.Errorf("only %d messages were met: %q", n, book.seen)
	}
}

// A handbook notes which of its messages were met.
type handbook struct {
	messages []documented
	mu       sync.Mutex
	seen     []string
}

// Errors and warnings of commands, and what berth doctor finds.
var (
	saidErrors   = regexp.MustCompile(`(?m)^(?:berth: error: |fail  )(.*?)(?:; to do: .*)?$`)
	saidWarnings = regexp.MustCompile(`(?m)^berth: warning: (.*)$`)
)

func (b *handbook) says(ts *testscript.TestScript, neg bool, args []string) {
	exits(ts, neg, args)
	output := ts.ReadFile("stderr") + ts.ReadFile("stdout")
	said := saidErrors.FindAllStringSubmatch(output, -1)
	if said == nil {
		said = saidWarnings.FindAllStringSubmatch(output, -1)
	}
	if said == nil {
		ts.Fatalf("nothing was said")
	}
	for _, m := range said {
		b.meet(ts, m[1], map[string]string{"64": "you", "75": "admin"}[args[0]])
	}
}

// meet looks text up: a message, with other steps in front of it or not.
func (b *handbook) meet(ts *testscript.TestScript, text, blamed string) {
	for _, d := range b.messages {
		if (isLike(d.message, text) || isLike("…: "+d.message, text)) && strings.Contains(d.who, blamed) {
			b.met(d.message)
			return
		}
	}
	ts.Fatalf("docs/troubleshooting.md does not have, for %q: %s", blamed, text)
}

func (b *handbook) met(message string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !slices.Contains(b.seen, message) {
		b.seen = append(b.seen, message)
	}
}
