package prolog

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"

	"github.com/berth-hpc/berth/imagecache/store"
	"github.com/berth-hpc/berth/launcher"
	"github.com/berth-hpc/berth/prolog/jobstate"
)

// endInside kills what is still in a job's containers on this node. A process
// that took a session of its own is overlooked by schedulers without cgroups,
// and it would keep the image and its loop device for as long as it lives. All
// of a job's containers, and nothing else, are in its user namespaces.
func endInside(ctx context.Context, runDir string, job jobstate.JobID) error {
	mounts, err := launcher.OpenMounts(ctx, runDir)
	if err != nil {
		return err
	}
	defer mounts.Close()
	outer, err := mounts.OpenPin(jobstate.PinName(job), jobstate.PinOuter)
	if errors.Is(err, fs.ErrNotExist) {
		return nil // it never had a container
	}
	if err != nil {
		return err
	}
	defer outer.Close()
	crowd, err := launcher.NewCrowd(outer)
	if err != nil {
		return fmt.Errorf("the job's user namespace: %w", err)
	}
	tidy := time.Now().Add(janitorGrace)
	for ctx.Err() == nil {
		found := false
		pids, err := launcher.Processes()
		for _, pid := range pids {
			// Its start first: a process that gets this number later has another.
			start, serr := store.ProcessStart(pid)
			if serr != nil || !crowd.Has(pid) {
				continue
			}
			found = true
			if time.Now().Before(tidy) && isJanitor(pid) {
				continue
			}
			err = errors.Join(err, endProcess(ctx, jobstate.Worker{PID: pid, Start: start}))
		}
		if !found || err != nil {
			return err
		}
		select {
		case <-time.After(5 * time.Millisecond):
		case <-ctx.Done():
		}
	}
	return fmt.Errorf("end what is in the containers: %w", ctx.Err())
}

// janitorGrace is how long janitors may take to remove containers' folders on
// scratch, once all else in the containers has ended.
const janitorGrace = 3 * time.Second

// isJanitor goes by the name, which any process may take: that gains it no
// more than janitorGrace.
func isJanitor(pid int) bool {
	name, err := os.ReadFile(fmt.Sprintf("/proc/%d/comm", pid))
	return err == nil && string(name) == "berth-janitor\n"
}
