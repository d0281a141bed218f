package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/berth-hpc/berth/fault"
	"github.com/berth-hpc/berth/imagecache"
)

// inspectCmd shows an image at hand. It asks no registry but with --history.
type inspectCmd struct {
	tier
	Image    string `arg:"" name:"image" help:"A reference that was pulled, or a digest (sha256: and at least 6 digits). With --history, also one that was not pulled."`
	History  bool   `help:"Show who made it, when and how, its layers, and which images share them; what is not at hand is asked for at its registry, without the layers."`
	Base     string `placeholder:"IMAGE" help:"With --history, also compare with this image, at hand or in a registry."`
	Platform string `placeholder:"OS/ARCH" help:"With --history, take the image for this platform if it is not at hand."`
	JSON     bool   `name:"json" help:"Print everything as JSON."`
}

// Run prints what runs need to know of the image, then its origin.
func (c *inspectCmd) Run(ctx context.Context, s *session) error {
	cfg, err := s.settings()
	if err != nil {
		return err
	}
	held, err := s.heldImages(ctx, cfg, c.tier)
	if err != nil {
		return err
	}
	if c.History {
		return c.history(ctx, s, cfg, held)
	}
	if c.Base != "" || c.Platform != "" {
		return &fault.Error{
			Op: "inspect", Arg: c.Image, Blame: fault.User, Err: errors.New("--base and --platform are about an image's history"),
			Remedy: "give --history, too",
		}
	}
	h, err := findImage(held, c.Image)
	if err != nil {
		return err
	}
	if c.JSON {
		return s.printJSON(h)
	}
	return s.printDetails(h)
}

// findImage returns the image that name stands for. When a tag has moved and
// several images were pulled by it, that is the youngest.
func findImage(held []heldImage, name string) (heldImage, error) {
	matches, err := matcher(name)
	if err != nil {
		return heldImage{}, err
	}
	var found *heldImage
	for i, h := range held {
		if matches(h) && (found == nil || h.Record.Created.After(found.Record.Created)) {
			found = &held[i]
		}
	}
	if found == nil {
		return heldImage{}, notAtHand("inspect", name)
	}
	return *found, nil
}

func isDigest(name string) bool { return strings.HasPrefix(name, "sha256:") }

func matcher(name string) (func(heldImage) bool, error) {
	if isDigest(name) {
		if len(name) < len("sha256:")+6 {
			return nil, &fault.Error{
				Op: "look for image", Arg: name, Blame: fault.User, Err: errors.New("too short for a digest"),
				Remedy: "give at least 6 digits after sha256:",
			}
		}
		return func(h heldImage) bool { return strings.HasPrefix(h.Record.Digest.String(), name) }, nil
	}
	ref, err := imagecache.ParseReference(name)
	if err != nil {
		return nil, err
	}
	return func(h heldImage) bool {
		return slices.Contains(h.Record.References, ref.String()) || !ref.Digest().IsZero() && ref.Digest() == h.Record.Digest
	}, nil
}

func (s *session) printDetails(h heldImage) error {
	t := tabwriter.NewWriter(s.stdout, 0, 0, 2, ' ', 0)
	line := func(name, value string) {
		if value != "" {
			fmt.Fprintf(t, "%s\t%s\n", name, printable(value))
		}
	}
	cfg, r := h.Image.Config, h.Record
	line("Digest", r.Digest.String())
	line("Platform", imagecache.Platform{OS: h.Image.OS, Architecture: h.Image.Architecture, Variant: h.Image.Variant}.String())
	line("Entrypoint", words(cfg.Entrypoint))
	line("Command", words(cfg.Cmd))
	line("Work folder", cfg.WorkingDir)
	line("User", cfg.User)
	for _, v := range cfg.Env {
		line("Variable", v)
	}
	for _, name := range sortedKeys(cfg.Labels) {
		line("Label", name+"="+cfg.Labels[name])
	}
	line("Pulled as", strings.Join(r.References, " "))
	line("Source", r.Source)
	line("Created", r.Created.Local().Format(time.DateTime)+" by Berth "+r.Version+", converter "+r.Converter)
	line("Layers", fmt.Sprintf("%d, %s compressed, %s unpacked", r.Layers, megabytes(r.Compressed), megabytes(r.Uncompressed)))
	line("Size", megabytes(h.Size))
	line("Last use", h.LastUse.Local().Format(time.DateTime))
	line("Used by", strings.Join(h.UsedBy, ", "))
	if h.Kept != nil {
		line("Kept", strings.TrimSpace(kept(h.Kept)+" "+h.Kept.Reason))
	}
	line("Time", phaseTimes(r.Seconds))
	line("File", h.Path)
	return t.Flush()
}

// words shows a command so that its words can be told apart.
func words(argv []string) string {
	if len(argv) == 0 {
		return ""
	}
	return fmt.Sprintf("%q", argv)
}

func phaseTimes(seconds map[string]float64) string {
	var parts []string
	for _, phase := range sortedKeys(seconds) {
		parts = append(parts, fmt.Sprintf("%s %.1f s", phase, seconds[phase]))
	}
	return strings.Join(parts, ", ")
}
