package prolog

import (
	"context"
	"errors"
	"fmt"

	"github.com/sirupsen/logrus"

	"github.com/berth-hpc/berth/fault"
	"github.com/berth-hpc/berth/imagecache/store"
	"github.com/berth-hpc/berth/prolog/jobstate"
)

// A Borrower is a user's own process that wants to use the node's store.
type Borrower struct {
	UID, GID uint32
	PID      int
}

// Lend leases an image for b and has it mounted, by the rights that a job of
// that user has. It uses what is at hand: where a registry would have to be
// asked, or anything looked into, it refuses, and the user pulls for themself.
// The refusal is the same whether the node has the image or not.
func Lend(ctx context.Context, log logrus.FieldLogger, cfg Config, b Borrower, image, digest string) (*jobstate.Ready, error) {
	if err := checkReference(image); err != nil {
		return nil, fault.Wrap("read the request", "", fault.User, "name an image", err)
	}
	d, err := store.ParseDigest(digest)
	if err != nil {
		return nil, fault.Wrap("read the request", "", fault.User, "name an image by its digest", err)
	}
	start, err := store.ProcessStart(b.PID)
	if err != nil {
		return nil, fmt.Errorf("look at the process that asks: %w", err)
	}
	// What ended since the last time, whose mounts nobody else takes away.
	if err := releaseImages(ctx, cfg.RunDir); err != nil {
		log.WithError(err).Warn("release images")
	}
	w := &worker{
		cfg: cfg, log: log, session: &jobstate.Worker{PID: b.PID, Start: start},
		req: jobstate.Request{UID: b.UID, GID: b.GID, Image: image, Digest: digest},
	}
	st, err := store.OpenExisting(cfg.StoreDir)
	if err != nil {
		return nil, errNotLent(image)
	}
	ready, ok := w.inStore(ctx, st, d)
	if !ok {
		return nil, errNotLent(image)
	}
	return ready, nil
}

func errNotLent(image string) error {
	return &fault.Error{
		Op: "use the node's store for", Arg: fault.Clean(image), Blame: fault.User,
		Err:    errors.New("this node has no such image that you may use without its registry being asked"),
		Remedy: "pull it: berth pull IMAGE",
	}
}
