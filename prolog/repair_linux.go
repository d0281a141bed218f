package prolog

import (
	"context"
	"errors"

	"github.com/sirupsen/logrus"

	"github.com/berth-hpc/berth/fault"
	"github.com/berth-hpc/berth/imagecache/store"
	"github.com/berth-hpc/berth/launcher"
)

// Repair takes a damaged image out of the node's store and pulls it again, by
// the first of its names that has it, as the account does for jobs. Root runs
// it. Jobs that have the damaged one mounted keep it until they end.
func Repair(ctx context.Context, log logrus.FieldLogger, cfg Config, im store.Image, references []string) error {
	ctx, cancel := context.WithTimeoutCause(ctx, cfg.PrepareDeadline, errDeadline(cfg.PrepareDeadline))
	defer cancel()
	cfg.Cluster.Mount = false // the node's own store is to have it
	st, err := store.OpenExisting(cfg.StoreDir)
	if err != nil {
		return err
	}
	err = &fault.Error{
		Op: "repair image", Arg: im.Digest().String(), Blame: fault.Site, Err: errors.New("its record names nothing that it could be pulled from"),
		Remedy: "remove it: berth verify --remove",
	}
	for _, name := range references {
		w := &worker{cfg: cfg, log: log.WithField("image", name)}
		w.req.Image = name
		var again store.Image
		if again, err = w.pullAgain(ctx, st, im); err == nil {
			im = again
			break
		}
	}
	if err != nil {
		return err
	}
	for _, name := range references {
		if err := im.Remember(name); err != nil {
			return err
		}
	}
	return withImages(ctx, cfg.RunDir, func(mounts *launcher.Mounts) error {
		return mounts.UnmountImage(ctx, im.Key())
	})
}
