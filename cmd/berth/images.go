package main

import (
	"context"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/berth-hpc/berth/cmd/internal/config"
	"github.com/berth-hpc/berth/imagecache/store"
)

// imagesCmd lists the images in the user's own store and in the node's, or in
// the cluster's.
type imagesCmd struct {
	tier
	JSON bool `name:"json" help:"Print all that is known of the images as JSON."`
}

// Run prints a line, or a JSON record, per image.
func (c *imagesCmd) Run(ctx context.Context, s *session) error {
	cfg, err := s.settings()
	if err != nil {
		return err
	}
	held, err := s.heldImages(ctx, cfg, c.tier)
	if err != nil {
		return err
	}
	if c.JSON {
		return s.printJSON(held)
	}
	return printImages(s.stdout, held)
}

func printImages(out io.Writer, held []heldImage) error {
	t := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "IMAGE\tDIGEST\tSIZE\tLAST USE\tUSED BY\tKEPT\tCREATED\tFROM\tSTORE")
	for _, h := range held {
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n", orDash(printable(strings.Join(h.Record.References, " "))),
			short(h.Record.Digest), megabytes(h.Size), h.LastUse.Local().Format(time.DateTime), orDash(printable(strings.Join(h.UsedBy, ", "))),
			kept(h.Kept), h.Record.Created.Local().Format(time.DateTime), orDash(printable(h.Record.Source)), h.Store)
	}
	return t.Flush()
}

// kept says how long an image stays.
func kept(k *store.Keep) string {
	switch {
	case k == nil:
		return "-"
	case k.Until.IsZero():
		return "for ever"
	}
	return "until " + k.Until.Local().Format(time.DateTime)
}

// A heldImage is one image at hand, as `--json` prints it.
type heldImage struct {
	Path    string         `json:"path"`  // the squashfs file
	Store   string         `json:"store"` // the folder of the store
	Size    int64          `json:"size_bytes"`
	LastUse time.Time      `json:"last_use"`
	UsedBy  []string       `json:"used_by"` // as far as the caller may know
	Kept    *store.Keep    `json:"kept"`    // null unless somebody keeps it
	Image   store.Manifest `json:"image"`
	Record  store.Record   `json:"record"`

	image store.Image
}

// heldImages returns the images of t's stores: the user's own, then the node's.
func (s *session) heldImages(ctx context.Context, cfg *config.Config, t tier) ([]heldImage, error) {
	places, err := t.places(ctx, s, cfg)
	all := []heldImage{}
	for _, p := range places {
		held, err := p.held(ctx)
		if err != nil {
			return nil, err
		}
		all = append(all, held...)
	}
	return all, err
}

// held returns the images of one store, ordered by digest.
func (p place) held(ctx context.Context) ([]heldImage, error) {
	images, err := p.List()
	var all []heldImage
	for _, image := range images {
		h, err := p.describe(ctx, image)
		if isGone(err) || p.hides(err) {
			continue
		}
		if err != nil {
			return nil, err
		}
		all = append(all, h)
	}
	return all, err
}

// describe reads what is known of an image.
func (p place) describe(ctx context.Context, image store.Image) (h heldImage, err error) {
	h = heldImage{Path: image.Rootfs(), Store: p.Root(), Kept: p.Kept(image), UsedBy: []string{}, image: image}
	if h.Image, err = image.Manifest(); err != nil {
		return h, err
	}
	if h.Record, err = image.Record(); err != nil {
		return h, err
	}
	h.Size = h.Record.Squashed
	if h.LastUse, err = image.LastUse(); err != nil {
		return h, err
	}
	by, err := p.usedBy(ctx, image)
	h.UsedBy = append(h.UsedBy, by...)
	return h, err
}
