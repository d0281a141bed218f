package main

import (
	"context"
	"encoding/json"
	"io"
	"time"

	"github.com/berth-hpc/berth/cmd/internal/config"
	"github.com/berth-hpc/berth/imagecache"
	"github.com/berth-hpc/berth/imagecache/store"
	"github.com/berth-hpc/berth/launcher/lend"
)

// borrowLimit bounds the wait for the node's answer.
const borrowLimit = 25 * time.Second

// borrow asks the node for a container of its store's image; nil where it has
// none for this user, who then pulls.
func (c *runCmd) borrow(ctx context.Context, s *session, cfg *config.Config) *lend.Loan {
	path := c.mountSocket(s, cfg)
	if path == "" {
		return nil
	}
	req, err := c.request(s, cfg)
	if err != nil || !lend.Lendable(req) || !c.plainDevices(s, cfg) {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, borrowLimit)
	defer cancel()
	digest, err := c.digest(ctx, s, cfg)
	if err != nil {
		return nil // the pull will say so
	}
	loan, err := lend.Borrow(ctx, path, lend.Request{Image: c.Image, Digest: digest.String(), Container: *req})
	if err != nil {
		s.log.WithError(err).Info("not from the node's store")
		return nil
	}
	return loan
}

// plainDevices says whether the container has what every container here has of
// /dev, and no hooks or libraries of the host's: a node lends no other.
func (c *runCmd) plainDevices(s *session, cfg *config.Config) bool {
	return machineCatalogue(s, cfg).Empty() && len(c.Device) == 0 && !c.HostMPI && len(c.devices(s, cfg).Variables) == 0
}

// digest is that of the image which the command names.
func (c *runCmd) digest(ctx context.Context, s *session, cfg *config.Config) (store.Digest, error) {
	ref, platform, err := c.imageRef().parse()
	if err != nil || !ref.Digest().IsZero() {
		return ref.Digest(), err
	}
	if ref.Kind() != imagecache.Registry {
		return store.Digest{}, store.ErrNotFound
	}
	return (&resolveCmd{}).resolve(ctx, s, cfg, ref, platform)
}

// runBorrowed turns the process into the command in a container of the node's.
func (c *runCmd) runBorrowed(s *session, loan *lend.Loan) error {
	defer loan.Close()
	info, err := loan.Config.Stat()
	if err != nil {
		return err
	}
	var image store.Manifest
	// The offset is shared with whoever read it before.
	if err := json.NewDecoder(io.NewSectionReader(loan.Config, 0, info.Size())).Decode(&image); err != nil {
		return err
	}
	argv, err := c.argv(image.Config)
	if err != nil {
		return err
	}
	tools, err := s.findTools()
	if err != nil {
		return err
	}
	return loan.Container.Exec(tools.join, loan.Users, c.RemapRoot, argv, c.given.over(s.withoutLogins()), c.given.names())
}
