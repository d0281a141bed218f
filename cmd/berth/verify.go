package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/berth-hpc/berth/cmd/internal/config"
	"github.com/berth-hpc/berth/fault"
	"github.com/berth-hpc/berth/imagecache"
	"github.com/berth-hpc/berth/imagecache/store"
	"github.com/berth-hpc/berth/prolog"
)

// verifyCmd reads every image at hand and compares it with what was written.
// Squashfs has no checksums, so nothing else finds a bit that flipped on disk.
type verifyCmd struct {
	Remove bool `xor:"mend" help:"Remove what is damaged, so that it is pulled again when it is next asked for."`
	Repair bool `xor:"mend" help:"Remove what is damaged and pull it again at once."`
	JSON   bool `name:"json" help:"Print the findings as JSON."`
}

// Findings of verify.
const (
	findingOK       = "ok"
	findingDamaged  = "damaged"
	findingRemoved  = "removed"  // was damaged
	findingRepaired = "repaired" // was damaged
)

// A finding is what verify says of one image.
type finding struct {
	Digest  store.Digest `json:"digest"`
	Store   string       `json:"store"`
	Finding string       `json:"finding"`
	Damage  string       `json:"damage,omitempty"` // what was wrong
	Failure string       `json:"failure,omitempty"`
}

// Run prints a line for each image. It exits 75 if one is damaged and was not
// repaired.
func (c *verifyCmd) Run(ctx context.Context, s *session) error {
	cfg, err := s.settings()
	if err != nil {
		return err
	}
	places, err := s.places(cfg)
	if err != nil {
		return err
	}
	findings := []finding{}
	for _, p := range places {
		some, err := c.verify(ctx, s, cfg, p)
		if err != nil {
			return err
		}
		findings = append(findings, some...)
	}
	if c.JSON {
		if err := s.printJSON(findings); err != nil {
			return err
		}
	}
	return summary(findings)
}

// summary is the error for what is still damaged.
func summary(findings []finding) error {
	damaged := 0
	for _, f := range findings {
		if f.Finding == findingDamaged || f.Finding == findingRemoved {
			damaged++
		}
	}
	if damaged == 0 {
		return nil
	}
	return &fault.Error{
		Op: "verify", Blame: fault.Site, Err: fmt.Errorf("%d images are damaged", damaged),
		Remedy: "look at the disk below the store; berth verify --repair pulls them again, --remove only removes them",
	}
}

// verify looks at the images of one store.
func (c *verifyCmd) verify(ctx context.Context, s *session, cfg *config.Config, p place) (findings []finding, err error) {
	images, err := p.List()
	if err != nil {
		return nil, err
	}
	for _, image := range images {
		f := finding{Digest: image.Digest(), Store: p.Root(), Finding: findingOK}
		err := image.Verify(ctx)
		switch {
		case errors.Is(err, store.ErrDamaged):
			f.Damage = printable(err.Error())
			f.Finding, err = c.mend(ctx, s, cfg, p, image)
			if err != nil {
				f.Failure = printable(err.Error())
			}
		case err != nil:
			return nil, err
		}
		findings = append(findings, f)
		if !c.JSON {
			printFinding(s, f)
		}
	}
	return findings, nil
}

func printFinding(s *session, f finding) {
	fmt.Fprintf(s.stdout, "%-8s %s %s", f.Finding, f.Digest, f.Store)
	for _, text := range []string{f.Damage, f.Failure} {
		if text != "" {
			fmt.Fprintf(s.stdout, ": %s", text)
		}
	}
	fmt.Fprintln(s.stdout)
}

// mend does what the caller wants done with a damaged image, and says what
// came of it.
func (c *verifyCmd) mend(ctx context.Context, s *session, cfg *config.Config, p place, image store.Image) (string, error) {
	if !c.Remove && !c.Repair {
		return findingDamaged, nil
	}
	if err := p.mine("mend image", image.Digest().String()); err != nil {
		return findingDamaged, err
	}
	record, err := image.Record() // gone with the image
	if err != nil {
		record.References = nil
	}
	if c.Repair && p.node {
		return repaired(findingDamaged, s.repairOnNode(ctx, image, record.References))
	}
	lock, err := p.Lock(ctx, image.Digest(), nil)
	if err != nil {
		return findingDamaged, err
	}
	if err := errors.Join(lock.Remove(image), lock.Release()); err != nil || c.Remove {
		return findingRemoved, err
	}
	return repaired(findingRemoved, s.pullAgain(ctx, cfg, image.Digest(), record.References))
}

// repaired is the finding after a repair, otherwise the other one.
func repaired(otherwise string, err error) (string, error) {
	if err != nil {
		return otherwise, err
	}
	return findingRepaired, nil
}

func (s *session) repairOnNode(ctx context.Context, image store.Image, references []string) error {
	site, err := s.site()
	if err != nil {
		return err
	}
	return prolog.Repair(ctx, s.log, site, image, references)
}

// errNoSource says that a damaged image cannot be pulled again.
var errNoSource = errors.New("its record names nothing that it could be pulled from")

// rememberAll keeps the names of an image that was pulled again.
func rememberAll(image store.Image, references []string) (err error) {
	for _, name := range references {
		err = errors.Join(err, image.Remember(name))
	}
	return err
}

// pullAgain gets d from where it came from, by the first name that has it.
func (s *session) pullAgain(ctx context.Context, cfg *config.Config, d store.Digest, references []string) error {
	err := errNoSource
	for _, name := range references {
		ref, perr := imagecache.ParseReference(name)
		if perr != nil {
			continue
		}
		image, perr := s.pull(ctx, cfg, &imageRef{Image: ref.WithDigest(d).String()})
		if perr == nil && image.Digest() == d {
			return rememberAll(image, references)
		}
		if err = perr; err == nil {
			err = fmt.Errorf("%s is another image now", name)
		}
	}
	return err
}
