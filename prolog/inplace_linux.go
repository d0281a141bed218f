package prolog

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/berth-hpc/berth/fault"
	"github.com/berth-hpc/berth/imagecache/store"
	"github.com/berth-hpc/berth/launcher"
	"github.com/berth-hpc/berth/prolog/jobstate"
)

// An image that the node mounts where the cluster's store has it, is known to
// the node by a folder below the run folder:
//
//	cluster/<key>/     image.json, a copy; rootfs.sqfs, a link to the file;
//	                   access.json, who may use it;
//	                   lease, whose time is that of the lease's last renewal
//	cluster/<key>.lock locked while a lease is written or ended
//	cluster/swept      leases from before the boot were ended
//
// so that steps, and jobs that come while it is mounted, need not ask the
// shared file system. The node's lease there is written before the first job's
// lease here, and ended after the last one's.

// How long a prolog and an epilog wait for a shared file system.
const (
	prologPatience = time.Second
	epilogPatience = 2 * time.Second
)

func inPlaceDir(runDir string) string { return filepath.Join(runDir, "cluster") }

func inPlaceFolder(runDir string, d store.Digest) string {
	return filepath.Join(inPlaceDir(runDir), store.Key(d))
}

const accessName = "access.json"

// errNotEntitled leaves an image to a worker, which asks the registry.
var errNotEntitled = errors.New("it is not known whether the user may use the image")

// accessInPlace is who may use an image that is mounted in place; nobody where
// that cannot be read.
func accessInPlace(runDir string, d store.Digest) (a store.Access) {
	data, err := os.ReadFile(filepath.Join(inPlaceFolder(runDir, d), accessName))
	if err != nil || json.Unmarshal(data, &a) != nil {
		return store.Access{}
	}
	return a
}

func sweptPath(runDir string) string { return filepath.Join(inPlaceDir(runDir), "swept") }

// useInPlace mounts the image where w.inPlace has it.
func (w *worker) useInPlace(ctx context.Context, d store.Digest) (*jobstate.Ready, error) {
	unlock, err := lockInPlace(ctx, w.cfg.RunDir, d)
	if err != nil {
		return nil, err
	}
	defer unlock()
	src, err := w.inPlace.Open(ctx, d) // before the lease: see store.Cluster.Lease
	if err != nil {
		return nil, err
	}
	defer src.Close()
	if a, err := src.Access(); err != nil || !w.mayUseNow(d, a) {
		return nil, errors.Join(err, errNotEntitled)
	}
	if err := w.leaseInPlace(ctx, src); err != nil {
		return nil, err
	}
	if w.suspect(src.Image()) {
		last := lastSquashfsError()
		if err := src.Verify(ctx); err != nil {
			return nil, err
		}
		w.noteGood(src.Image(), last)
	}
	return w.mountInPlace(ctx, src)
}

// leaseInPlace has the node's lease on src's image there and known here.
func (w *worker) leaseInPlace(ctx context.Context, src *store.Source) error {
	d := src.Image().Digest()
	if err := makeInPlace(w.cfg.RunDir, src); err != nil {
		return err
	}
	if err := w.inPlace.Lease(ctx, d); err != nil {
		return err
	}
	if !src.InPlace(ctx, w.inPlace) {
		return fmt.Errorf("%w: %s was removed meanwhile", store.ErrUnusable, d) // cleaning up ends the lease
	}
	return nil
}

func (w *worker) mountInPlace(ctx context.Context, src *store.Source) (*jobstate.Ready, error) {
	d := src.Image().Digest()
	if err := w.mustBeEntitled(d); err != nil {
		return nil, err
	}
	err := withImages(ctx, w.cfg.RunDir, func(mounts *launcher.Mounts) error {
		if err := jobstate.SetLease(w.cfg.RunDir, w.req.Job, store.Key(d)); err != nil {
			return fmt.Errorf("lease: %w", err)
		}
		return mounts.MountImage(ctx, store.Key(d), src.Rootfs)
	})
	if err != nil {
		return nil, fault.Wrap("mount image", d.String(), fault.Site, "ask your administrator to run on this node: berth doctor", err)
	}
	return readyInPlace(w.cfg.RunDir, d), nil
}

func readyInPlace(runDir string, d store.Digest) *jobstate.Ready {
	return &jobstate.Ready{Digest: d.String(), Mount: store.Key(d), Dir: inPlaceFolder(runDir, d)}
}

// makeInPlace writes the folder. It keeps its place while steps read from it.
func makeInPlace(runDir string, src *store.Source) error {
	folder := inPlaceFolder(runDir, src.Image().Digest())
	if err := os.MkdirAll(folder, 0o700); err != nil {
		return err
	}
	link := filepath.Join(folder, store.RootfsName)
	if err := os.Symlink(src.Image().Rootfs(), link); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	access, err := src.Access()
	return errors.Join(err,
		store.WriteJSON(filepath.Join(folder, accessName), 0o400, access),
		os.WriteFile(filepath.Join(folder, store.ConfigName), src.Manifest, 0o400),
		os.WriteFile(filepath.Join(folder, "lease"), nil, 0o400),
		os.Chtimes(filepath.Join(folder, "lease"), time.Time{}, time.Now()))
}

// lockInPlace makes one process of the node at a time write or end its lease.
func lockInPlace(ctx context.Context, runDir string, d store.Digest) (unlock func(), err error) {
	if err := os.MkdirAll(inPlaceDir(runDir), 0o700); err != nil {
		return nil, err
	}
	f, err := os.OpenFile(inPlaceFolder(runDir, d)+".lock", os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	if err := launcher.Flock(ctx, f); err != nil {
		f.Close()
		return nil, err
	}
	return func() { f.Close() }, nil
}

// insteadOfInPlace pulls into the node's store what could not be used in
// place, and uses that.
func (w *worker) insteadOfInPlace(ctx context.Context, st *store.Store, d store.Digest, why error) (*jobstate.Ready, error) {
	w.log.WithError(why).Warn("the image cannot be used where the cluster's store has it")
	if errors.Is(why, launcher.ErrBadImage) || errors.Is(why, store.ErrDamaged) {
		if err := w.inPlace.SetAside(ctx, d); err != nil {
			w.log.WithError(err).Warn("set the image aside")
		}
		// Other jobs keep their copies of the mount.
		err := withImages(ctx, w.cfg.RunDir, func(mounts *launcher.Mounts) error {
			return mounts.UnmountImage(ctx, store.Key(d))
		})
		if err != nil {
			return nil, err
		}
	}
	w.inPlace, w.withoutCluster = nil, true
	im, err := w.pull(ctx, st, d)
	if err != nil {
		return nil, err
	}
	return w.use(ctx, st, im)
}

// atOnceInPlace is atOnce for an image that the cluster's store has. Where it
// is mounted already, that costs no look at the shared file system.
func (w *worker) atOnceInPlace(ctx context.Context, d store.Digest) (*jobstate.Ready, bool) {
	if w.cfg.Cluster.Dir == "" || !w.cfg.Cluster.Mount {
		return nil, false
	}
	ctx, cancel := context.WithTimeout(ctx, prologPatience)
	defer cancel()
	if ready, ok := w.joinInPlace(ctx, d); ok {
		return ready, true
	}
	if _, err := os.Stat(sweptPath(w.cfg.RunDir)); err != nil {
		return nil, false // the first since the boot: the worker sweeps
	}
	c, err := w.cfg.Cluster.open(ctx)
	if err != nil {
		return nil, false
	}
	w.inPlace = c
	ready, err := w.useInPlace(ctx, d)
	return ready, err == nil
}

// joinInPlace adds the job to those that use an image which is mounted and
// whose lease holds for long.
func (w *worker) joinInPlace(ctx context.Context, d store.Digest) (*jobstate.Ready, bool) {
	if !w.cfg.Cluster.fresh(w.cfg.RunDir, d) || !w.mayUseNow(d, accessInPlace(w.cfg.RunDir, d)) {
		return nil, false
	}
	unlock, err := lockInPlace(ctx, w.cfg.RunDir, d)
	if err != nil {
		return nil, false
	}
	defer unlock()
	mounted := false
	err = withImages(ctx, w.cfg.RunDir, func(mounts *launcher.Mounts) error {
		names, err := mounts.Images()
		mounted = slices.Contains(names, store.Key(d)) && w.cfg.Cluster.fresh(w.cfg.RunDir, d)
		if err != nil || !mounted {
			return err
		}
		return jobstate.SetLease(w.cfg.RunDir, w.req.Job, store.Key(d))
	})
	return readyInPlace(w.cfg.RunDir, d), mounted && err == nil
}

// fresh says whether the node's lease on d was renewed not long ago.
func (c ClusterConfig) fresh(runDir string, d store.Digest) bool {
	info, err := os.Stat(filepath.Join(inPlaceFolder(runDir, d), "lease"))
	return err == nil && time.Since(info.ModTime()) < c.Lease/8
}

// endOldLeases ends those that the node had before it was booted, once.
func (w *worker) endOldLeases(ctx context.Context, c *store.Cluster) {
	if _, err := os.Stat(sweptPath(w.cfg.RunDir)); err == nil {
		return
	}
	err := c.EndOldLeases(ctx)
	if err == nil {
		err = errors.Join(os.MkdirAll(inPlaceDir(w.cfg.RunDir), 0o700), os.WriteFile(sweptPath(w.cfg.RunDir), nil, 0o600))
	}
	if err != nil {
		w.log.WithError(err).Warn("end leases from before the boot")
	}
}

// releaseInPlace ends the node's leases on images that no job uses any more,
// and renews the others. What the shared file system does not allow now is
// done after the next job.
func releaseInPlace(ctx context.Context, cfg Config) error {
	folders, _ := filepath.Glob(filepath.Join(inPlaceDir(cfg.RunDir), "*.*"))
	ctx, cancel := context.WithTimeout(ctx, epilogPatience)
	defer cancel()
	var c *store.Cluster
	var err error
	for _, folder := range folders {
		hex, _, _ := strings.Cut(filepath.Base(folder), ".")
		d, derr := store.ParseDigest("sha256:" + hex)
		if derr != nil || strings.HasSuffix(folder, ".lock") {
			continue
		}
		if c == nil && cfg.Cluster.Dir != "" {
			if c, err = cfg.Cluster.open(ctx); err != nil {
				return fmt.Errorf("end leases in the cluster's store: %w", err)
			}
		}
		err = errors.Join(err, releaseOne(ctx, cfg, c, d))
	}
	return err
}

// releaseOne gets no c where the site has no cluster's store any more.
func releaseOne(ctx context.Context, cfg Config, c *store.Cluster, d store.Digest) error {
	unlock, err := lockInPlace(ctx, cfg.RunDir, d)
	if err != nil {
		return err
	}
	defer unlock()
	leased, err := jobstate.Leased(cfg.RunDir)
	if err != nil {
		return err
	}
	switch used := len(leased[store.Key(d)]) > 0; {
	case used && c != nil && !cfg.Cluster.fresh(cfg.RunDir, d):
		err = c.Lease(ctx, d)
		if err == nil {
			err = os.Chtimes(filepath.Join(inPlaceFolder(cfg.RunDir, d), "lease"), time.Time{}, time.Now())
		}
		return err
	case used:
		return nil
	case c != nil:
		if err := c.Unlease(ctx, d); err != nil {
			return err
		}
	}
	return os.RemoveAll(inPlaceFolder(cfg.RunDir, d))
}
