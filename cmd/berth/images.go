package main

import (
	"fmt"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/berth-hpc/berth/cmd/internal/config"
	"github.com/berth-hpc/berth/imagecache/store"
)

// imagesCmd lists the images in the user's own store and in the node's.
type imagesCmd struct {
	JSON bool `name:"json" help:"Print the images' records as JSON."`
}

// Run prints one line per reference, or a record per image as JSON.
func (c *imagesCmd) Run(s *session) error {
	cfg, err := s.settings()
	if err != nil {
		return err
	}
	held, err := heldImages(cfg)
	if err != nil {
		return err
	}
	if c.JSON {
		return s.printJSON(held)
	}
	t := tabwriter.NewWriter(s.stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "IMAGE\tDIGEST\tSIZE\tCREATED\tFROM\tPULL\tCONVERT\tSTORE")
	for _, h := range held {
		took := h.Record.Seconds
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%.1f s\t%.1f s\t%s\n", orDash(printable(strings.Join(h.Record.References, " "))),
			short(h.Record.Digest), megabytes(h.Record.Squashed), h.Record.Created.Local().Format(time.DateTime),
			orDash(printable(h.Record.Source)), took["pull"], took["unpack"]+took["squash"], h.Store)
	}
	return t.Flush()
}

// A heldImage is one image at hand, as `--json` prints it.
type heldImage struct {
	Path   string         `json:"path"`  // the squashfs file
	Store  string         `json:"store"` // the folder of the store
	Image  store.Manifest `json:"image"`
	Record store.Record   `json:"record"`
}

// heldImages returns the images of the user's own store, then the node's.
// Stores that do not exist, or that the user may not read, hold nothing.
func heldImages(cfg *config.Config) ([]heldImage, error) {
	held := []heldImage{}
	for _, root := range []string{cfg.Store.UserDir, cfg.Store.Dir} {
		images, err := store.OpenExisting(root)
		if err != nil || root == "" {
			continue
		}
		list, err := images.List()
		if err != nil {
			return nil, err
		}
		for _, image := range list {
			h, err := describe(image, root)
			if err != nil {
				return nil, err
			}
			held = append(held, h)
		}
	}
	return held, nil
}

// describe reads an image's files.
func describe(image store.Image, root string) (h heldImage, err error) {
	h = heldImage{Path: image.Rootfs(), Store: root}
	if h.Image, err = image.Manifest(); err != nil {
		return h, err
	}
	h.Record, err = image.Record()
	return h, err
}
