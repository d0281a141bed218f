package prolog

import (
	"context"
	"errors"
	"fmt"
	"io/fs"

	"github.com/berth-hpc/berth/launcher"
	"github.com/berth-hpc/berth/prolog/jobstate"
)

// forgetKept has the named containers of a job removed that go with it, by a
// process of its user's: their folder is the user's, and root follows no path
// there. It must come before the job's pins and folder go.
func forgetKept(ctx context.Context, cfg Config, job jobstate.JobID) error {
	who, err := jobstate.ReadKept(cfg.RunDir, job)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	mounts, err := launcher.OpenMounts(ctx, cfg.RunDir)
	if err != nil {
		return err
	}
	defer mounts.Close()
	outer, err := mounts.OpenPin(jobstate.PinName(job), jobstate.PinOuter)
	if err != nil {
		return err
	}
	defer outer.Close()
	kept := cfg.Kept
	kept.OfJob, kept.Forget = true, true
	req := &launcher.Request{
		User: launcher.User{UID: who.UID, GID: who.GID, Groups: who.Groups},
		Job:  launcher.Job{ID: string(job)}, Kept: &kept,
	}
	if err := launcher.Forget(ctx, cfg.Creator, outer, req); err != nil {
		return fmt.Errorf("remove the job's named containers: %w", err)
	}
	return nil
}
