package main

import (
	"context"
	"fmt"
	"time"

	"github.com/berth-hpc/berth/cmd/internal/config"
	"github.com/berth-hpc/berth/imagecache"
	"github.com/berth-hpc/berth/imagecache/store"
)

// resolveCmd turns a reference into a digest. Submitting a job runs it, as
// the user, so that all nodes of the job use the same image.
type resolveCmd struct {
	imageRef
	Timeout time.Duration `help:"Give up after this time (setting resolve.timeout)."`
	Fresh   bool          `help:"Ask the registry even if it was asked a short while ago."`
	JSON    bool          `name:"json" help:"Print the canonical reference, the platform and the digest as JSON."`
}

// Run prints the digest alone on one line.
func (c *resolveCmd) Run(ctx context.Context, s *session) error {
	if err := guardSecrets(); err != nil {
		return err
	}
	cfg, err := s.settings()
	if err != nil {
		return err
	}
	ref, platform, err := c.parse()
	if err != nil {
		return err
	}
	if err := s.permitted(ref); err != nil {
		return err
	}
	if c.Timeout <= 0 {
		c.Timeout = cfg.Resolve.Timeout
	}
	ctx, cancel := context.WithTimeout(ctx, c.Timeout)
	defer cancel()
	digest, err := c.resolve(ctx, s, cfg, ref, platform)
	if err != nil {
		return err
	}
	if c.JSON {
		return s.printJSON(map[string]string{
			"reference": ref.String(), "platform": platform.String(), "digest": digest.String(),
		})
	}
	_, err = fmt.Fprintln(s.stdout, digest)
	return err
}

func (c *resolveCmd) resolve(ctx context.Context, s *session, cfg *config.Config, ref imagecache.Reference, platform imagecache.Platform) (store.Digest, error) {
	if c.Fresh || cfg.Resolve.TTL == 0 || cfg.Store.UserDir == "" {
		return imagecache.Resolve(ctx, ref, platform, s.network(cfg))
	}
	return answers(cfg).Resolve(ctx, ref, platform, s.network(cfg))
}
