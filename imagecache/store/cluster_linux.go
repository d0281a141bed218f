package store

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/berth-hpc/berth/fault"
)

// Causes of a cluster's store not giving an image.
var (
	// ErrUnusable says that the shared file system is missing, full, read-only
	// or does not answer, or that what lies there may not be trusted.
	ErrUnusable = errors.New("the cluster's store cannot be used")
	// ErrLockLost says that another node took over, because this one had not
	// renewed its lock for too long.
	ErrLockLost = errors.New("another node took the image's lock over")
)

// ClusterOptions say how this node takes part in a cluster's store.
type ClusterOptions struct {
	Host   string // this node's name; no other node may have it
	Writer bool   // pulls for the others
	// Stale is after how long without a sign of life a holder of a lock
	// counts as dead. Holders renew twelve times as often, waiters look every
	// 60th to 12th part of it.
	Stale time.Duration
	// Lease is how long a node's lease holds that is not renewed.
	Lease time.Duration
	// RemoveDelay is how long a removed image's file stays.
	RemoveDelay time.Duration
	// Quota is what the images may take together, in bytes, 0 for no limit;
	// LowWater down to what they go then.
	Quota, LowWater int64
	// Patience bounds each look at the file system.
	Patience time.Duration
}

// A Cluster is a store on a file system that many nodes share, which saves all
// but one of them the registry and the conversion. Its layout is a Store's,
// and besides:
//
//	images/.removed/                    what was removed, for RemoveDelay
//	leases/<key>/<node>.<boot id>       the node has the image mounted in place
//	pins/<job>.<key>                    what the image of a job means, see Pin
//
// It needs nothing of the file system but that rename(2) and link(2) are
// atomic. Root of the writers' hosts writes everything in it; root of the
// others may be nobody there. Nothing in it is believed that others than root
// could have changed.
//
// Every method returns ErrUnusable for what the file system does to it, and
// never waits much longer than Patience for a file system that hangs.
type Cluster struct {
	*Store
	links *linker
	opts  ClusterOptions
}

// OpenCluster returns the cluster's store at root, an absolute path. Root
// itself must exist, so that a file system which is not mounted is not taken
// for an empty store; a writer makes what is missing in it.
func OpenCluster(ctx context.Context, root string, opts ClusterOptions) (*Cluster, error) {
	if err := checkHost(opts.Host); err != nil {
		return nil, err
	}
	self, err := thisProcess(opts.Host)
	if err != nil {
		return nil, unusable("open", root, err)
	}
	s := &Store{root: filepath.Clean(root), shared: true}
	c := &Cluster{Store: s, opts: opts, links: &linker{dir: s.locksDir(), self: self, stale: opts.Stale, patience: opts.Patience}}
	if err := c.patiently(ctx, c.prepare); err != nil {
		return nil, unusable("open", root, err)
	}
	return c, nil
}

func (c *Cluster) prepare() error {
	if err := checkTrustedDir(c.root); err != nil {
		return err
	}
	if !c.opts.Writer {
		return nil
	}
	const leasesMode = 0o755
	if info, err := os.Lstat(c.leasesDir()); err == nil && info.Mode().Perm() == leasesMode {
		return nil // made last
	}
	for _, dir := range []struct {
		path string
		mode os.FileMode
	}{
		{filepath.Dir(c.imagesDir()), 0o755},
		{c.imagesDir(), 0o755},
		{c.newDir(), 0o700},
		{c.removedDir(), 0o700},
		{c.tmpDir(), 0o711},
		{c.locksDir(), 0o755},
		{c.leasesDir(), leasesMode},
	} {
		if err := makeShared(dir.path, dir.mode); err != nil {
			return err
		}
	}
	return nil
}

// makeShared makes a folder, with its rights whatever the umask, and brings both
// to disk: which folder is made last is to mean something after a crash, too.
func makeShared(path string, mode os.FileMode) error {
	if err := os.Mkdir(path, mode); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	if err := os.Chmod(path, mode); err != nil {
		return err
	}
	return errors.Join(syncDir(path), syncDir(filepath.Dir(path)))
}

func (c *Cluster) removedDir() string { return filepath.Join(c.root, "images", ".removed") }
func (c *Cluster) leasesDir() string  { return filepath.Join(c.root, "leases") }

// Writer says whether this node may pull into the cluster's store.
func (c *Cluster) Writer() bool { return c.opts.Writer }

// A Progress hears who pulls an image and, in one line, how far it is.
type Progress func(host, line string)

// Ensure returns image d of the cluster's store, opened and checked. Where it
// is missing, one of all nodes that call this at once calls fill, which
// publishes it into the store under the lock, and the others wait, hearing of
// its progress by waiting. One that dies is taken over. What fill fails with
// is what those who waited get, too, after a second node tried, unless it is a
// PersonalError.
//
// A node that may not write waits for one that is at it, and otherwise gets
// ErrNotFound. Where images are removed as soon as they are there, the store
// is ErrUnusable after maxRemoved of them.
func (c *Cluster) Ensure(ctx context.Context, d Digest, waiting Progress, fill func(context.Context, *Lock) error) (*Source, error) {
	for removed := 0; removed < maxRemoved; {
		src, err := c.Open(ctx, d)
		if !errors.Is(err, ErrNotFound) {
			return src, err
		}
		if !c.opts.Writer {
			return c.openLater(ctx, d, waiting)
		}
		src, err = c.fill(ctx, d, waiting, fill)
		switch {
		case src != nil:
			return src, nil
		case err == nil:
			removed++ // if the next look does not find it
		case !errors.Is(err, ErrLockLost) || ctx.Err() != nil:
			return nil, err
		}
	}
	src, err := c.Open(ctx, d)
	if errors.Is(err, ErrNotFound) {
		err = unusable("open image", d.String(), errors.New("it is removed as soon as it is there"))
	}
	return src, err
}

// maxRemoved is how often Ensure begins anew for an image that was there and is
// gone.
const maxRemoved = 3

// openLater waits for a pull that is under way, if there is one.
func (c *Cluster) openLater(ctx context.Context, d Digest, waiting Progress) (*Source, error) {
	err := c.links.wait(ctx, Key(d), false, tellHost(waiting))
	if err != nil {
		return nil, unusable("wait for another node's pull of", d.String(), err)
	}
	return c.Open(ctx, d)
}

// fill has the image pulled by this node, and opens it, or returns nil when
// another one has pulled it.
func (c *Cluster) fill(ctx context.Context, d Digest, waiting Progress, fill func(context.Context, *Lock) error) (*Source, error) {
	lock, before, err := c.lock(ctx, d, waiting)
	if lock == nil {
		return nil, err
	}
	src, err := c.fillLocked(ctx, lock, d, fill)
	switch {
	case err == nil:
		c.forgetFailure(d)
	case ctx.Err() == nil && !errors.Is(err, ErrLockLost) && !isPersonal(err):
		c.recordFailure(d, before, lock.link.is.holder, err)
	}
	_ = lock.Release() // one that cannot be given back goes stale
	c.did("gave the lock back")
	if err == nil && c.opts.Quota > 0 { // nobody waits for this
		_, _ = c.collectImages(Collection{}, lock.key) // the next one tries again
	}
	return src, err
}

// fillLocked opens what it pulled at once: giving the lock back may take long,
// and who removes the image then takes nothing from a job that has it open.
func (c *Cluster) fillLocked(ctx context.Context, lock *Lock, d Digest, fill func(context.Context, *Lock) error) (*Source, error) {
	src, err := c.Open(ctx, d)
	if !errors.Is(err, ErrNotFound) {
		return src, err // whoever held the lock before has published it
	}
	c.Expunge(ctx)
	if err := c.pull(ctx, lock, fill); err != nil {
		return nil, err
	}
	src, _ = c.Open(ctx, d) // nil: Ensure looks again, and says why
	return src, nil
}

// pull runs fill, which ends when the lock is lost.
func (c *Cluster) pull(ctx context.Context, lock *Lock, fill func(context.Context, *Lock) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	ended := make(chan struct{})
	defer close(ended)
	go func() {
		select {
		case <-lock.link.lost:
			cancel(ErrLockLost)
		case <-ended:
		}
	}()
	err := fill(ctx, lock)
	if err != nil && !lock.link.owned() {
		return ErrLockLost // what failed only shows that another sweeps here
	}
	return err
}

// lock takes d's lock. It is nil without an error when the image came
// meanwhile, and nil with the error of a holder who gave up while we waited.
// before is what the last one of those recorded.
func (c *Cluster) lock(ctx context.Context, d Digest, waiting Progress) (l *Lock, before *failure, err error) {
	key, waitedFor := Key(d), map[string]bool{}
	tell := func(f lockFile) {
		waitedFor[f.holder.ID] = true
		waiting(f.holder.Host, fault.Clean(f.beat.Progress))
	}
	for {
		if err := c.links.wait(ctx, key, true, tell); err != nil {
			return nil, nil, lockError(ctx, d, err)
		}
		if len(waitedFor) > 0 {
			if c.published(key) {
				return nil, nil, nil
			}
			if before = c.failureOf(d, waitedFor); before.final() {
				return nil, before, before.err()
			}
		}
		held, err := c.links.try(key)
		if err != nil {
			return nil, nil, lockError(ctx, d, err)
		}
		if held != nil {
			l = &Lock{store: c.Store, key: key, link: held}
			c.sweepLinked(key)
			return l, before, nil
		}
	}
}

// published looks by way of a folder that it opens: over NFS that asks the
// server, where a name that was missing a moment ago might be remembered so.
func (c *Cluster) published(key string) bool {
	dir, err := openTrustedDir(c.root, "images", "sha256")
	if err != nil {
		return false
	}
	defer dir.Close()
	var st unix.Stat_t
	return unix.Fstatat(int(dir.Fd()), key, &st, unix.AT_SYMLINK_NOFOLLOW) == nil
}

func lockError(ctx context.Context, d Digest, err error) error {
	if ctx.Err() != nil {
		return fault.Wrap("wait for another node's pull of", d.String(), fault.Site,
			"another node is pulling this image; submit the job again later", err)
	}
	return unusable("lock", d.String(), err)
}

func tellHost(waiting Progress) func(lockFile) {
	return func(f lockFile) { waiting(f.holder.Host, fault.Clean(f.beat.Progress)) }
}

// unusable makes err one that is ErrUnusable.
func unusable(op, arg string, err error) error {
	if err == nil || errors.Is(err, ErrUnusable) {
		return err
	}
	return &fault.Error{
		Op: op, Arg: arg, Blame: fault.Site,
		Remedy: "look at the file system below cluster.dir, and at who may write there",
		Err:    fmt.Errorf("%w: %w", ErrUnusable, err),
	}
}
