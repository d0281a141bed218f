package main

import (
	"os"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/berth-hpc/berth/testdata/docs"
	"github.com/berth-hpc/berth/testdata/images"
	"github.com/rogpeppe/go-internal/testscript"
)

func documentedMessages(t *testing.T) []docs.Message {
	t.Helper()
	all, err := docs.Messages(root)
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// What docs/troubleshooting.md quotes is what the programs say: its words stand
// in their sources, or, where they are the kernel's, the network's or Slurm's,
// in theirs. Nothing else has these words, so that this test notices when a
// message is changed.
func TestDocumentedMessagesExist(t *testing.T) {
	ours, machine, slurm := berthSays(t), machineSays(t), slurmSays(t)
	for _, m := range documentedMessages(t) {
		others := machine
		if strings.Contains(m.Section, "Slurm") {
			if others = slurm; others == nil {
				t.Log("no Slurm here: its words are not looked for")
				continue
			}
		}
		if !isSaid(m.Text, ours, others) {
			t.Errorf("%q (%s) is nobody's message", m.Text, m.Section)
		}
		if other := withoutLongest(m.Text); isSaid(other, ours, others) {
			t.Errorf("%q (%s) is no better than %q: have it say more", m.Text, m.Section, other)
		}
	}
}

// isSaid reports whether a message is somebody's, by more than a word of it.
func isSaid(message string, ours, others wordings) bool {
	return mostLetters(find(message, ours, others)) >= min(4, docs.Letters(message))
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
	messages []docs.Message
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

func (b *handbook) meet(ts *testscript.TestScript, text, blamed string) {
	m, ok := docs.Explain(b.messages, text)
	switch {
	case !ok:
		ts.Fatalf("docs/troubleshooting.md does not have: %s", text)
	case !strings.Contains(m.Who, blamed):
		ts.Fatalf("docs/troubleshooting.md: %q is for %s, and the exit status blames %s", m.Text, m.Who, blamed)
	}
	b.met(m.Text)
}

func (b *handbook) met(message string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !slices.Contains(b.seen, message) {
		b.seen = append(b.seen, message)
	}
}
