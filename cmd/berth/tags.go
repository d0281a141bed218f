package main

import (
	"context"
	"fmt"
	"text/tabwriter"
	"time"

	"github.com/berth-hpc/berth/imagecache"
)

// tagsCmd lists the tags of one repository.
type tagsCmd struct {
	Image   string        `arg:"" name:"image" help:"[REGISTRY/]NAME; a tag or digest in it does not matter."`
	Newest  int           `placeholder:"N" help:"Show the N newest versions (0: all)."`
	Page    int           `default:"1" help:"Show those after the first so many times --newest, counted from 1."`
	Timeout time.Duration `default:"60s" help:"Give up after this time (${default})."`
	JSON    bool          `name:"json" help:"Print what the registry tells as JSON."`
}

// Help says in which order tags come.
func (tagsCmd) Help() string {
	return "The newest version is first: numbers in it count as numbers (1.17 before 1.9), and of one version of a Conda package (1.17--h00cdaf9_0) the build with the highest number. Names that do not begin with a number, like latest, come last. Sizes are of the compressed layers; many registries tell neither those nor dates."
}

// A tagsReport is what --json prints.
type tagsReport struct {
	Image string `json:"image"`
	listingReport
	Denied string           `json:"denied_by,omitempty"`
	Tags   []imagecache.Tag `json:"tags"`
}

// Run prints a line for each tag.
func (c *tagsCmd) Run(ctx context.Context, s *session) error {
	if err := guardSecrets(); err != nil {
		return err
	}
	if err := checkPages(c.Newest, c.Page); err != nil {
		return err
	}
	cfg, err := s.settings()
	if err != nil {
		return err
	}
	ref, err := imagecache.ParseReference(c.Image)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, c.Timeout)
	defer cancel()
	all, err := imagecache.Tags(ctx, ref, s.network(cfg))
	if err != nil {
		return err
	}
	all.Cut(c.Newest*(c.Page-1), c.Newest)
	denied, err := s.denials()
	if err != nil {
		return err
	}
	report := tagsReport{Image: ref.Name(), listingReport: listing(s, all), Tags: orEmpty(all.Entries)}
	if report.Denied, err = denied(ref.Name()); err != nil {
		return err
	}
	if report.Denied != "" {
		s.log.Warnf("the site's policy keeps jobs from %s: it is denied by %s", ref.Name(), report.Denied)
	}
	if c.JSON {
		return s.printJSON(report)
	}
	if err := s.printTags(report.Tags); err != nil {
		return err
	}
	s.sayMore(report.listingReport, c.Page)
	return nil
}

func (s *session) printTags(tags []imagecache.Tag) error {
	t := tabwriter.NewWriter(s.stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "TAG\tSIZE\tUPDATED\tDIGEST")
	for _, tag := range tags {
		size, digest := "-", "-"
		if tag.Size > 0 {
			size = megabytes(tag.Size)
		}
		if !tag.Digest.IsZero() {
			digest = short(tag.Digest)
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\n", printable(tag.Name), size, date(tag.Updated), digest)
	}
	return t.Flush()
}
