package main

import (
	"context"
	"errors"
	"fmt"
	"text/tabwriter"
	"time"

	"github.com/berth-hpc/berth/fault"
	"github.com/berth-hpc/berth/imagecache"
)

// searchCmd looks for repositories in a registry.
type searchCmd struct {
	Term      string        `arg:"" optional:"" help:"A word of the image's name or description."`
	Registry  string        `default:"docker.io" placeholder:"HOST" help:"Where to look (${default}; BioContainers: quay.io)."`
	Namespace string        `placeholder:"NAME" help:"Look only at images NAME/…, as in biocontainers."`
	Limit     int           `default:"25" help:"Show so many (${default}; 0: all)."`
	Page      int           `default:"1" help:"Show those after the first so many times --limit, counted from 1."`
	Timeout   time.Duration `default:"60s" help:"Give up after this time (${default})."`
	JSON      bool          `name:"json" help:"Print what the registry tells as JSON."`
}

// A searchReport is what --json prints.
type searchReport struct {
	listingReport
	Found []foundReport `json:"found"`
}

// A foundReport is one repository.
type foundReport struct {
	imagecache.Found
	Denied string `json:"denied_by,omitempty"` // what of the site's policy keeps jobs from it
}

// Run prints a line for each repository that was found.
func (c *searchCmd) Run(ctx context.Context, s *session) error {
	if err := guardSecrets(); err != nil {
		return err
	}
	if err := checkPages(c.Limit, c.Page); err != nil {
		return err
	}
	cfg, err := s.settings()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, c.Timeout)
	defer cancel()
	q := imagecache.Query{
		Registry: c.Registry, Namespace: c.Namespace, Term: c.Term, Skip: c.Limit * (c.Page - 1), Limit: c.Limit,
	}
	found, err := imagecache.Search(ctx, q, s.network(cfg))
	if err != nil {
		return err
	}
	report := searchReport{listing(s, found), []foundReport{}}
	denied, err := s.denials()
	if err != nil {
		return err
	}
	for _, f := range found.Entries {
		by, err := denied(f.Name)
		if err != nil {
			return err
		}
		report.Found = append(report.Found, foundReport{f, by})
	}
	if c.JSON {
		return s.printJSON(report)
	}
	if err := s.printFound(report.Found); err != nil {
		return err
	}
	s.sayMore(report.listingReport, c.Page)
	return nil
}

func (s *session) printFound(found []foundReport) error {
	t := tabwriter.NewWriter(s.stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "IMAGE\tSTARS\tPULLS\tUPDATED\tOFFICIAL\tJOBS\tDESCRIPTION")
	for _, f := range found {
		official := "-"
		if f.Official {
			official = "yes"
		}
		jobs := "-"
		if f.Denied != "" {
			jobs = "denied by " + printable(f.Denied)
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%s\t%s\n", printable(f.Name), count(f.Stars), count(f.Pulls), date(f.Updated), official, jobs,
			orDash(printable(f.Description)))
	}
	return t.Flush()
}

// A listingReport says whose word a list is.
type listingReport struct {
	Source string   `json:"source"`
	API    string   `json:"interface"`
	More   bool     `json:"more"`
	Notes  []string `json:"notes"`
}

// listing reports on all, and says aloud what is not as it should be.
func listing[T any](s *session, all *imagecache.Listing[T]) listingReport {
	for _, note := range all.Notes {
		s.log.Warn(printable(note))
	}
	return listingReport{Source: all.Source, API: string(all.API), More: all.More, Notes: orEmpty(all.Notes)}
}

// sayMore points to the next page.
func (s *session) sayMore(report listingReport, page int) {
	if report.More {
		fmt.Fprintf(s.stderr, "there is more: --page %d\n", page+1)
	}
}

func checkPages(size, page int) error {
	if size >= 0 && page >= 1 && (size > 0 || page == 1) && size <= 1e6 && page <= 1e6 {
		return nil
	}
	return &fault.Error{
		Op: "read the command line", Blame: fault.User, Err: errors.New("there is no such page"),
		Remedy: "pages are counted from 1, and have at least one entry",
	}
}

// orEmpty is a list that JSON shows as one.
func orEmpty[T any](all []T) []T { return append([]T{}, all...) }

func count(n int64) string {
	if n <= 0 {
		return "-"
	}
	return fmt.Sprint(n)
}

func date(t time.Time) string {
	if t.IsZero() {
		return "-"
	}
	return t.Local().Format(time.DateOnly)
}
