package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/berth-hpc/berth/cmd/internal/config"
	"github.com/berth-hpc/berth/fault"
	"github.com/berth-hpc/berth/imagecache"
	"github.com/berth-hpc/berth/imagecache/store"
	"github.com/berth-hpc/berth/warm"
)

// warmCmd has images at hand before jobs ask for them: root in the node's
// store, or in those of a partition's nodes; users in their own.
type warmCmd struct {
	File  []string `short:"f" placeholder:"FILE" help:"Lists of images: a reference in each line, or TOML (docs/warm.md); - is standard input."`
	From  string   `placeholder:"FILE" help:"Take the images that a workflow names: nextflow.config, *.nf, Snakefile, *.smk; or a list."`
	Queue bool     `help:"Take what the jobs that wait in Slurm will need, as far as their AdminComment says (root)."`
	Group []string `placeholder:"NAME" help:"Only the images of these groups."`

	Lock    string        `placeholder:"FILE" help:"Use the digests in FILE, and write those into it that it lacks: the same everywhere."`
	Update  bool          `help:"Ask the registries also for what the lock file has."`
	KeepFor time.Duration `placeholder:"DURATION" help:"Keep images for so long, as in 720h, where the list says nothing else; each run renews it."`
	DryRun  bool          `help:"Only print the list of images."`
	JSON    bool          `name:"json" help:"Print what became of each image and node as JSON."`

	warmLimits
	warmElsewhere

	MaxImages  int `default:"20" help:"With --queue: at most so many images."`
	MaxPerUser int `default:"5" help:"With --queue: at most so many images of one user's jobs."`
}

// warmLimits keep a warming out of the way of what runs beside it.
type warmLimits struct {
	Rate     byteRate      `placeholder:"SIZE" help:"Transfer at most so many bytes a second, as in 50MB, on each node."`
	MaxLoad  float64       `placeholder:"N" help:"Begin an image only while the machine's load is at most N for each CPU (--queue: 1.25)."`
	LoadWait time.Duration `default:"10m" help:"How long to wait for that before the image is left for the next run."`
	Parallel int           `default:"1" help:"So many images at once on each node."`
	Spread   time.Duration `placeholder:"DURATION" help:"Wait up to so long, by chance, before the first transfer; with --partition by default a second for each node, 5 minutes at most."`
}

// byteRate is bytes per second as people write sizes.
type byteRate int64

// UnmarshalText implements encoding.TextUnmarshaler.
func (r *byteRate) UnmarshalText(text []byte) error {
	n, err := config.ParseSize(string(text))
	*r = byteRate(n)
	return err
}

// Outcomes of an image.
const (
	warmReady     = "ready"     // was at hand
	warmPulled    = "pulled"    // is at hand now
	warmPostponed = "postponed" // the machine has too much to do
	warmFailed    = "failed"
	warmResolved  = "resolved" // for other machines
)

// A warmedImage is what became of one image, as `--json` prints it.
type warmedImage struct {
	Image    string         `json:"image"`
	Platform string         `json:"platform,omitempty"`
	Digest   string         `json:"digest,omitempty"`
	State    string         `json:"state"`
	Bytes    int64          `json:"bytes,omitempty"` // of the image's file
	Seconds  float64        `json:"seconds,omitempty"`
	Kept     *store.Keep    `json:"kept,omitempty"`
	Failure  *fault.Message `json:"failure,omitempty"`
	err      error
}

func (w *warmedImage) fail(err error) {
	w.State, w.err, w.Failure = warmFailed, err, fault.NewMessage(err)
}

// A warmResult is all of a run.
type warmResult struct {
	Images  []warmedImage `json:"images"`
	Nodes   []warmedNode  `json:"nodes,omitempty"`
	Unclear []string      `json:"unclear,omitempty"` // of a workflow
	Skipped int           `json:"skipped,omitempty"` // of the queue
}

// Run ends with 0 when everything is at hand, 75 when running it again may help,
// 64 when the list has to be corrected.
func (c *warmCmd) Run(ctx context.Context, s *session) error {
	if err := guardSecrets(); err != nil {
		return err
	}
	beGentle()
	if c.Queue {
		return c.queue(ctx, s)
	}
	list, err := c.list(s)
	if err != nil {
		return err
	}
	entries, err := list.Only(c.Group)
	if err != nil {
		return err
	}
	for _, text := range list.Unclear {
		s.log.Warnf("not understood, left out: %s", text)
	}
	if c.DryRun {
		return c.print(s, entries, list.Unclear)
	}
	by, err := c.warmer(s)
	if err != nil {
		return err
	}
	result := &warmResult{Unclear: list.Unclear}
	entries, err = c.resolveAll(ctx, s, by, entries, result)
	if err == nil && c.elsewhere() {
		err = c.onNodes(ctx, s, entries, result)
	} else if err == nil {
		c.here(ctx, s, by, entries, result)
	}
	return c.finish(s, result, err)
}

// list reads what is to be at hand.
func (c *warmCmd) list(s *session) (*warm.List, error) {
	if (c.From == "") == (len(c.File) == 0) {
		return nil, &fault.Error{
			Op: "warm", Blame: fault.User, Err: errors.New("which images?"),
			Remedy: "name one source: -f images.txt, --from nextflow.config, or --queue",
		}
	}
	if c.From != "" {
		dir, name := filepath.Split(c.From)
		l, err := warm.FromWorkflow(os.DirFS(filepath.Clean(dir+".")), name)
		return l, fault.Wrap("read", c.From, fault.User, "", err)
	}
	all := &warm.List{}
	for _, name := range c.File {
		l, err := readList(s, name)
		if err != nil {
			return nil, err
		}
		all.Merge(l)
	}
	return all, nil
}

func readList(s *session, name string) (*warm.List, error) {
	var data []byte
	var err error
	if name == "-" {
		name = "standard input"
		data, err = io.ReadAll(s.stdin)
	} else {
		data, err = os.ReadFile(name)
	}
	if err != nil {
		return nil, fault.Wrap("read", name, fault.User, "", err)
	}
	return warm.Parse(name, data)
}

// print lists the images as text, which -f reads.
func (c *warmCmd) print(s *session, entries []warm.Entry, unclear []string) error {
	if c.JSON {
		r := &warmResult{Images: []warmedImage{}, Unclear: unclear}
		for _, e := range entries {
			r.Images = append(r.Images, imageOf(e))
		}
		return s.printJSON(r)
	}
	seen := map[string]bool{}
	for _, e := range entries {
		if name := e.Digested().String(); !seen[name] {
			seen[name] = true
			fmt.Fprintln(s.stdout, name)
		}
	}
	return nil
}

func imageOf(e warm.Entry) warmedImage {
	w := warmedImage{Image: e.Name(), Platform: e.Platform, Kept: e.Keep.From(time.Now())}
	if !e.Digest.IsZero() {
		w.Digest = e.Digest.String()
	}
	return w
}

// resolveAll gives every entry its digest: the list's, the lock file's, or what
// its registry says, which is asked once. Those without are in the result.
func (c *warmCmd) resolveAll(ctx context.Context, s *session, by warmer, entries []warm.Entry, result *warmResult) ([]warm.Entry, error) {
	lock, err := c.readLock()
	if err != nil {
		return nil, err
	}
	var good, written []warm.Entry
	for _, e := range entries {
		if e.Keep.IsZero() && c.KeepFor > 0 {
			e.Keep.For = c.KeepFor
		}
		if e.Platform == "" && e.Digest.IsZero() && (c.Lock != "" || c.elsewhere()) {
			// Others read the digest that is found for this machine's.
			e.Platform = imagecache.HostPlatform().String()
		}
		err := c.resolve(ctx, by, lock, &e)
		if err == nil {
			good, written = append(good, e), append(written, e)
			continue
		}
		if ctx.Err() != nil {
			return nil, err
		}
		failed := imageOf(e)
		failed.fail(err)
		result.Images = append(result.Images, failed)
		s.log.WithError(err).Warnf("%s: not warmed", e.Name())
		if e.Digest = lock.Digest(e); !e.Digest.IsZero() {
			written = append(written, e) // what was locked stays so
		}
	}
	return good, c.writeLock(written)
}

func (c *warmCmd) resolve(ctx context.Context, by warmer, lock warm.Lock, e *warm.Entry) error {
	if !e.Digest.IsZero() {
		return nil
	}
	if e.Digest = lock.Digest(*e); !e.Digest.IsZero() && !c.Update {
		return nil
	}
	d, err := by.resolve(ctx, *e)
	if err == nil {
		e.Digest = d
	}
	return err
}

func (c *warmCmd) readLock() (warm.Lock, error) {
	if c.Lock == "" {
		return nil, nil
	}
	data, err := os.ReadFile(c.Lock)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fault.Wrap("read", c.Lock, fault.User, "", err)
	}
	l, err := warm.Parse(c.Lock, data)
	if err != nil {
		return nil, err
	}
	return warm.NewLock(l), nil
}

// writeLock replaces the lock file, if it is another one.
func (c *warmCmd) writeLock(entries []warm.Entry) error {
	if c.Lock == "" {
		return nil
	}
	data, err := warm.Encode(entries)
	if err != nil {
		return err
	}
	if had, err := os.ReadFile(c.Lock); err == nil && string(had) == string(data) {
		return nil
	}
	tmp, err := os.CreateTemp(filepath.Dir(c.Lock), ".berth-warm-")
	if err != nil {
		return fault.Wrap("write", c.Lock, fault.User, "", err)
	}
	_, err = tmp.Write(data)
	err = errors.Join(err, tmp.Chmod(0o644), tmp.Close())
	if err == nil {
		err = os.Rename(tmp.Name(), c.Lock)
	}
	if err != nil {
		_ = os.Remove(tmp.Name())
	}
	return fault.Wrap("write", c.Lock, fault.Site, "", err)
}

// finish prints the result, and says as an error what is not at hand.
func (c *warmCmd) finish(s *session, r *warmResult, err error) error {
	if r.Images == nil {
		r.Images = []warmedImage{}
	}
	if c.JSON {
		if jerr := s.printJSON(r); err == nil {
			err = jerr
		}
	} else {
		r.print(s.stdout)
	}
	if err != nil {
		return err
	}
	return r.err()
}

// print writes a line for each image and node.
func (r *warmResult) print(out io.Writer) {
	for _, im := range r.Images {
		text := fmt.Sprintf("%-9s %s", im.State, im.Image)
		if im.Platform != "" {
			text += " (" + im.Platform + ")"
		}
		if im.Digest != "" {
			text += " " + im.Digest[:min(len(im.Digest), len("sha256:")+12)]
		}
		if im.State == warmPulled {
			text += fmt.Sprintf(" %s in %.1f s", megabytes(im.Bytes), im.Seconds)
		}
		if im.Kept != nil && im.State != warmFailed {
			text += ", kept " + kept(im.Kept)
		}
		if im.Failure != nil {
			text += ": " + printable(im.Failure.Text)
		}
		fmt.Fprintln(out, text)
	}
	for _, n := range r.Nodes {
		fmt.Fprintln(out, n)
	}
}

// err says what is not at hand: the site's fault where running it again may
// help.
func (r *warmResult) err() error {
	images, nodes := 0, 0
	blame, first := fault.User, error(nil)
	for _, im := range r.Images {
		switch {
		case im.State == warmPostponed:
			images, blame = images+1, fault.Site
		case im.err != nil:
			images++
			if first == nil {
				first = im.err
			}
			if fault.Of(im.err) != fault.User {
				blame = fault.Site
			}
		}
	}
	for _, n := range r.Nodes {
		if n.State != nodeReady {
			nodes, blame = nodes+1, fault.Site
		}
	}
	if images+nodes == 0 {
		return nil
	}
	text := fmt.Sprintf("%d of %d images are not at hand", images, len(r.Images))
	if len(r.Nodes) > 0 {
		text = fmt.Sprintf("%d of %d nodes do not have everything", nodes, len(r.Nodes))
		if images > 0 {
			text += fmt.Sprintf(", %d images were not looked for", images)
		}
	}
	remedy := "run it again: it does what is left"
	if blame == fault.User {
		remedy = "correct the list"
	}
	if r := fault.Remedy(first); r != "" {
		remedy += "; " + r
	}
	return &fault.Error{Op: "warm", Blame: blame, Err: errors.New(text), Remedy: remedy}
}
