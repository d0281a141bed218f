package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"github.com/berth-hpc/berth/cmd/internal/config"
	"github.com/berth-hpc/berth/cmd/internal/nodelog"
	"github.com/berth-hpc/berth/fault"
	"github.com/berth-hpc/berth/prolog/jobstate"
	"github.com/berth-hpc/berth/prolog/records"
)

// logsCmd shows what Berth said for a job. A user gets it from the job's
// records: the log also says what is not for them, such as which private images
// a node has. Root gets the log itself.
type logsCmd struct{ jobArg }

// Run prints a line per message.
func (c *logsCmd) Run(ctx context.Context, s *session) error {
	id, step, err := c.parse()
	if err != nil {
		return err
	}
	if s.user.uid == 0 {
		if said, err := s.printLog(ctx, id, step); said || err != nil {
			return err
		}
	}
	all, err := s.records(c.jobArg)
	if err != nil {
		return err
	}
	for i := range all {
		tellRecord(s.stdout, &all[i])
	}
	return nil
}

// tellRecord says in lines what became of a step.
func tellRecord(out io.Writer, r *records.Record) {
	say := func(after float64, format string, a ...any) {
		at := r.Time.Local().Add(time.Duration(after * float64(time.Second)))
		fmt.Fprintf(out, "%s %s %s: %s\n", at.Format("2006-01-02T15:04:05.000"), r.Node, stepOf(r), printable(fmt.Sprintf(format, a...)))
	}
	waited, made := r.Seconds["image_wait"], r.Seconds["create"]
	if from := fromWhere(r.Image); from != "" {
		say(waited, "image %s (%s) from %s, waited %.3f s", r.Asked, r.Digest, from, waited)
	}
	if r.Said != nil {
		for _, n := range r.Said.Notes {
			say(waited+made, "note: %s", n)
		}
	}
	switch {
	case r.Failure != nil:
		say(waited+made, "failed: %s", r.Failure.Text)
		if r.Failure.Remedy != "" {
			say(waited+made, "  %s", r.Failure.Remedy)
		}
	case r.Joined:
		say(waited+made, "joined the container %s, which ran already", r.Name)
	default:
		say(waited+made, "container ready in %.3f s", made)
	}
}

// printLog prints what the node's log has of a job, and says whether that was
// anything.
func (s *session) printLog(ctx context.Context, id jobstate.JobID, step string) (said bool, err error) {
	cfg, err := s.settings()
	if err != nil {
		return false, err
	}
	if nodelog.System().Resolve(cfg.Log.To) == config.LogJournal {
		if path, err := exec.LookPath("journalctl"); err == nil {
			return s.printJournal(ctx, path, id, step)
		}
	}
	files := []string{filepath.Join(cfg.Node.RunDir, "step.log")}
	folders, err := jobstate.Folders(cfg.Node.RunDir, id)
	if err != nil {
		return false, fault.Wrap("read the log of job", string(id), fault.Site, "look at "+cfg.Node.RunDir, err)
	}
	for _, f := range folders {
		files = append(files, f.LogPath())
	}
	for _, name := range files {
		some, err := printLines(s.stdout, name, id, step)
		said = said || some
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return said, fault.Wrap("read the log", name, fault.Site, "", err)
		}
	}
	return said, nil
}

func (s *session) printJournal(ctx context.Context, path string, id jobstate.JobID, step string) (bool, error) {
	args := []string{"--no-pager", "--quiet", "--output=short-iso-precise", "BERTH_JOB=" + string(id)}
	if step != "" {
		args = append(args, "BERTH_STEP="+step)
	}
	cmd := exec.CommandContext(ctx, path, args...)
	counted := &counter{to: s.stdout}
	cmd.Stdout, cmd.Stderr = counted, s.stderr
	err := cmd.Run()
	return counted.n > 0, fault.Wrap("read the journal with", path, fault.Site, "see whether journalctl works on this node", err)
}

// A counter counts what it passes on.
type counter struct {
	to io.Writer
	n  int
}

// Write implements io.Writer.
func (c *counter) Write(p []byte) (int, error) {
	c.n += len(p)
	return c.to.Write(p)
}

// printLines prints the lines of a job in a log file. What is in quotes is
// users' text, which may look like a field.
func printLines(out io.Writer, name string, id jobstate.JobID, step string) (some bool, err error) {
	f, err := os.Open(name)
	if err != nil {
		return false, err
	}
	defer f.Close()
	quoted := regexp.MustCompile(`"(?:[^"\\]|\\.)*"`)
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		fields := " " + quoted.ReplaceAllString(lines.Text(), `""`) + " "
		if !strings.Contains(fields, " job="+string(id)+" ") || step != "" && !strings.Contains(fields, " step="+step+" ") {
			continue
		}
		some = true
		fmt.Fprintln(out, printable(lines.Text()))
	}
	return some, lines.Err()
}
