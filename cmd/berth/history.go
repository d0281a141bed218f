package main

import (
	"context"
	"fmt"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/berth-hpc/berth/cmd/internal/config"
	"github.com/berth-hpc/berth/imagecache"
	"github.com/berth-hpc/berth/imagecache/store"
)

// A madeImage is an image with what it says of its making, at hand or not.
type madeImage struct {
	ref     imagecache.Reference
	image   store.Manifest
	history *store.History
	record  *store.Record // nil if it is not at hand
}

// A historyReport is what --history prints.
type historyReport struct {
	Reference string            `json:"reference"`
	Digest    store.Digest      `json:"digest"`
	Platform  string            `json:"platform"`
	AtHand    bool              `json:"at_hand"`
	Author    string            `json:"author,omitempty"`
	Built     time.Time         `json:"built,omitzero"`
	Base      *baseReport       `json:"base,omitempty"` // as the image itself names it
	BuiltOn   []sharedReport    `json:"built_on"`       // images all of whose layers it begins with
	Compared  *sharedReport     `json:"compared,omitempty"`
	Size      int64             `json:"compressed_bytes"`
	Unpacked  int64             `json:"uncompressed_bytes,omitempty"` // of images at hand
	Squashed  int64             `json:"squashed_bytes,omitempty"`     // of images at hand
	Labels    map[string]string `json:"labels,omitempty"`
	Steps     []stepReport      `json:"steps"`
	Pull      string            `json:"pull"` // a command line
	Try       string            `json:"try"`  // a command line, as good as one can guess
	Unknown   int               `json:"images_of_unknown_layers"`
}

// A baseReport is an image's word on what it was built on.
type baseReport struct {
	Name   string       `json:"name,omitempty"`
	Digest store.Digest `json:"digest,omitzero"`
}

// A sharedReport is another image with layers in common.
type sharedReport struct {
	Image  string `json:"image"`
	Layers int    `json:"layers"` // that it has
	Common int    `json:"common"` // with which both begin
}

// A stepReport is a step, and who else has its layer.
type stepReport struct {
	store.Step
	SharedWith []string `json:"shared_with,omitempty"`
}

// history prints how an image was made.
func (c *inspectCmd) history(ctx context.Context, s *session, cfg *config.Config, held []heldImage) error {
	if err := guardSecrets(); err != nil {
		return err
	}
	made, err := c.made(ctx, s, cfg, held, c.Image)
	if err != nil {
		return err
	}
	report := made.report()
	report.compareAll(made, held)
	if c.Base != "" {
		base, err := c.made(ctx, s, cfg, held, c.Base)
		if err != nil {
			return err
		}
		report.compareWith(made, c.Base, base.history)
	}
	if c.JSON {
		return s.printJSON(report)
	}
	return s.printHistory(report)
}

// made finds the image that name stands for: at hand, or at its registry where
// it is not, or where an older Berth has not kept its history.
func (c *inspectCmd) made(ctx context.Context, s *session, cfg *config.Config, held []heldImage, name string) (madeImage, error) {
	platform, err := imagecache.ParsePlatform(c.Platform)
	if err != nil {
		return madeImage{}, err
	}
	h, err := findImage(held, name)
	atHand := err == nil && (c.Platform == "" || platformOf(h.Image) == platform)
	if err != nil && isDigest(name) {
		return madeImage{}, err
	}
	var digest store.Digest
	if atHand {
		name, digest, platform = firstOf(h.Record.References, name), h.Record.Digest, platformOf(h.Image)
	}
	ref, err := imagecache.ParseReference(name)
	if err != nil {
		return madeImage{}, err
	}
	if atHand && h.Record.History != nil {
		return madeImage{ref, h.Image, h.Record.History, &h.Record}, nil
	}
	ctx, cancel := deadline(ctx, cfg.Network.Deadline)
	defer cancel()
	d, err := imagecache.Describe(ctx, ref, digest, platform, s.network(cfg))
	m := madeImage{ref: ref, image: d.Image, history: d.History}
	if atHand {
		m.record = &h.Record
	}
	return m, err
}

func firstOf(all []string, otherwise string) string {
	if len(all) > 0 {
		return all[0]
	}
	return otherwise
}

// report is all but what other images share.
func (m madeImage) report() *historyReport {
	r := &historyReport{
		Reference: m.ref.String(), Digest: m.image.Digest, Platform: platformOf(m.image).String(), AtHand: m.record != nil,
		Labels: m.image.Config.Labels, BuiltOn: []sharedReport{}, Steps: []stepReport{},
		Pull: commandLine("berth", "pull", m.ref.WithDigest(m.image.Digest).String()), Try: m.try(),
	}
	if m.record != nil {
		r.Size, r.Unpacked, r.Squashed = m.record.Compressed, m.record.Uncompressed, m.record.Squashed
	}
	h := m.history
	if h == nil {
		return r
	}
	r.Author, r.Built = h.Author, h.Built
	if h.Base != "" || !h.BaseDigest.IsZero() {
		r.Base = &baseReport{h.Base, h.BaseDigest}
	}
	for _, step := range h.Steps {
		r.Steps = append(r.Steps, stepReport{Step: step})
		if step.Layer != nil && m.record == nil {
			r.Size += step.Layer.Compressed
		}
	}
	return r
}

// compareAll looks for the image's layers in all that are at hand.
func (r *historyReport) compareAll(m madeImage, held []heldImage) {
	for _, h := range held {
		switch {
		case h.Record.Digest == m.image.Digest:
			continue
		case h.Record.History == nil:
			r.Unknown++
			continue
		}
		name := firstOf(h.Record.References, h.Record.Digest.String())
		theirs := map[store.Digest]bool{}
		for _, d := range layersOf(h.Record.History) {
			theirs[d] = true
		}
		for i, step := range r.Steps {
			if step.Layer != nil && theirs[step.Layer.DiffID] {
				r.Steps[i].SharedWith = append(step.SharedWith, name)
			}
		}
		if s := shared(name, m.history, h.Record.History); s.Layers > 0 && s.Common == s.Layers {
			r.BuiltOn = append(r.BuiltOn, s)
		}
	}
}

// compareWith looks for the layers of one image.
func (r *historyReport) compareWith(m madeImage, name string, base *store.History) {
	s := shared(name, m.history, base)
	r.Compared = &s
}

// shared compares the layers with which two images begin.
func shared(name string, a, b *store.History) sharedReport {
	ours, theirs := layersOf(a), layersOf(b)
	s := sharedReport{Image: name, Layers: len(theirs)}
	for s.Common < min(len(ours), len(theirs)) && ours[s.Common] == theirs[s.Common] {
		s.Common++
	}
	return s
}

func layersOf(h *store.History) (all []store.Digest) {
	if h == nil {
		return nil
	}
	for _, step := range h.Steps {
		if step.Layer != nil {
			all = append(all, step.Layer.DiffID)
		}
	}
	return all
}

func (s *session) printHistory(r *historyReport) error {
	t := tabwriter.NewWriter(s.stdout, 0, 0, 2, ' ', 0)
	line := func(name, value string) {
		if value != "" {
			fmt.Fprintf(t, "%s\t%s\n", name, printable(value))
		}
	}
	line("Image", r.Reference)
	line("Digest", r.Digest.String())
	line("Platform", r.Platform)
	line("Author", r.Author)
	if !r.Built.IsZero() {
		line("Built", r.Built.Local().Format(time.DateTime))
	}
	line("Size", r.sizes())
	if r.Base != nil {
		line("Base", strings.TrimSpace(r.Base.Name+" "+r.Base.Digest.String())+" (as the image says)")
	}
	for _, on := range r.BuiltOn {
		line("Built on", fmt.Sprintf("%s: begins with all its layers, %d", on.Image, on.Layers))
	}
	if c := r.Compared; c != nil {
		line("Compared", fmt.Sprintf("%s: begins with %d of its layers, %d", c.Image, c.Common, c.Layers))
	}
	for _, name := range sortedKeys(r.Labels) {
		line("Label", name+"="+r.Labels[name])
	}
	line("Pull", r.Pull)
	line("Try", r.Try)
	if err := t.Flush(); err != nil {
		return err
	}
	return s.printSteps(r)
}

// sizes says what is known: only images at hand were ever unpacked.
func (r *historyReport) sizes() string {
	size := megabytes(r.Size) + " compressed"
	if r.AtHand {
		size += fmt.Sprintf(", %s unpacked, %s squashed", megabytes(r.Unpacked), megabytes(r.Squashed))
	}
	return size
}

func (s *session) printSteps(r *historyReport) error {
	fmt.Fprintln(s.stdout)
	t := tabwriter.NewWriter(s.stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "LAYER\tSIZE\tBUILT\tALSO IN\tCOMMAND")
	for _, step := range r.Steps {
		layer, size, words := "-", "-", step.Command
		if step.Layer != nil {
			layer, size = short(step.Layer.DiffID), megabytes(step.Layer.Compressed)
		}
		if words == "" {
			words = step.Comment
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\n", layer, size, date(step.Built), orDash(printable(strings.Join(step.SharedWith, " "))), orDash(oneCommand(words)))
	}
	if r.Unknown > 0 {
		s.log.Warnf("of %d images at hand the layers are not known: an older Berth converted them", r.Unknown)
	}
	return t.Flush()
}

// maxCommand is how much of a command fits a line; --json has more.
const maxCommand = 200

// oneCommand is a step's command as a line: builders write Dockerfiles' lines
// with their breaks.
func oneCommand(words string) string {
	line := []rune(strings.Join(strings.Fields(words), " "))
	if len(line) > maxCommand {
		line = append(line[:maxCommand], '…')
	}
	return printable(string(line))
}
