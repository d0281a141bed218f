package prolog

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"github.com/sirupsen/logrus"

	"github.com/berth-hpc/berth/fault"
	"github.com/berth-hpc/berth/imagecache"
	"github.com/berth-hpc/berth/imagecache/credentials"
	"github.com/berth-hpc/berth/imagecache/store"
	"github.com/berth-hpc/berth/policy"
	"github.com/berth-hpc/berth/prolog/jobstate"
)

// Work is `berth node worker FOLDER`, which only Prepare starts: it prepares
// what the request in the folder asks for and records the outcome. It inherits
// the folder's lock as descriptor 3 and holds it until it ends. From login it
// reads what the job's session said of the user's login; nil where nobody was
// asked. The error means that the outcome could not be recorded.
func Work(ctx context.Context, log logrus.FieldLogger, cfg Config, path string, login io.Reader) error {
	began := time.Now()
	folder := jobstate.Existing(path)
	if err := announce(folder); err != nil {
		return err
	}
	req, err := folder.Request()
	if err != nil {
		return err
	}
	log = log.WithFields(logrus.Fields{"job": req.Job, "uid": req.UID, "image": req.Image})
	ctx, cancel := context.WithTimeoutCause(ctx, cfg.PrepareDeadline, errDeadline(cfg.PrepareDeadline))
	defer cancel()
	w := &worker{cfg: cfg, log: log, folder: folder, req: req, phases: phases{}}
	if login != nil {
		if err := w.takeLogin(login); err != nil {
			return err
		}
	}
	state := w.prepare(ctx)
	state.Time, state.Seconds = time.Now(), time.Since(began).Seconds()
	err = folder.SetState(state)
	// The job goes on by now.
	w.count(state)
	return err
}

func errDeadline(d time.Duration) error {
	return &fault.Error{
		Op: "prepare the image", Blame: fault.Site, Cause: fault.Deadline,
		Remedy: "run: berth pull IMAGE, to see where the time goes; the limit is node.prepare_deadline in /etc/berth/berth.toml",
		Err:    fmt.Errorf("gave up after %s", d),
	}
}

// whyEnded is the deadline's error, or that of a worker that was asked to end.
func whyEnded(ctx context.Context) error {
	return fault.Wrap("prepare the image", "", fault.Site, "submit the job again",
		fmt.Errorf("the preparation was stopped: %w", context.Cause(ctx)))
}

// A worker is one run of Work.
type worker struct {
	cfg    Config
	log    logrus.FieldLogger
	folder jobstate.Folder
	req    jobstate.Request
	// session is set instead of the job where a user's own process asks.
	session *jobstate.Worker
	hit     bool
	pinned  bool        // what the tag means is the same on all nodes of the job
	found   os.FileInfo // on a hit: the image's folder

	// See cluster_linux.go.
	withoutCluster bool
	inPlace        *store.Cluster // the image is used where this has it
	shout          func(line string)

	// See policy_linux.go; without a policy there is no decision.
	ref          imagecache.Reference
	decision     *policy.Decision
	signed       []store.Signature
	signedPublic bool // whether nobody's login was needed to see them

	// See count_linux.go.
	phases phases
	pulled int64
	rights string
	signer string

	entitled store.Digest // what the user may use; see rights.go
	login    credentials.Login
	looked   bool  // for login
	lookErr  error // why it is not known whether there is one
	handed   *handed
	refusal  error // the registry's, to whoever asked last

	// See warm_linux.go.
	warming   bool   // nothing is leased
	anonymous bool   // no login of anybody's is used
	platform  string // "" for this machine's
	rate      int64  // of transfers, in bytes per second; 0 for no bound
	watch     imagecache.ProgressFunc

	telling sync.Mutex // for what follows, and shout
	meter   imagecache.Meter
	said    time.Time
}

// prepare turns every end into an outcome.
func (w *worker) prepare(ctx context.Context) jobstate.State {
	ready, err := w.image(ctx)
	if err != nil && ctx.Err() != nil {
		err = whyEnded(ctx) // killed children and broken pipes are only its signs
	}
	if err != nil {
		w.log.WithError(err).Error("prepare")
		return jobstate.State{Failure: fault.NewMessage(err), LoginWanted: w.loginWanted(err), Phases: w.phases, Pulled: w.pulled, Verdicts: w.verdicts()}
	}
	ready.Pinned = w.pinned
	w.log.WithField("digest", ready.Digest).Info("ready")
	return jobstate.State{Ready: ready, Hit: w.hit, Phases: w.phases, Pulled: w.pulled, Verdicts: w.verdicts()}
}

func (w *worker) image(ctx context.Context) (*jobstate.Ready, error) {
	if err := w.permit(ctx); err != nil {
		return nil, err
	}
	st, err := store.Open(w.cfg.StoreDir)
	if err != nil {
		return nil, err
	}
	resolved := w.phases.begin("resolve")
	d, err := w.digest(ctx, st)
	resolved()
	if err != nil {
		return nil, err
	}
	for range removedTries - 1 {
		ready, err := w.get(ctx, st, d)
		if !errors.Is(err, store.ErrNotFound) {
			return ready, err
		}
		w.log.Info("the image was removed before the job could lease it")
	}
	return w.get(ctx, st, d)
}

// removedTries is how often a worker begins again whose image made room for
// another one, after it was found or pulled and before it was leased.
const removedTries = 3

// get is find, and where nothing may be pulled says the same of what is not
// there and of what is, but for others.
func (w *worker) get(ctx context.Context, st *store.Store, d store.Digest) (*jobstate.Ready, error) {
	ready, err := w.find(ctx, st, d)
	if denial := w.cfg.Policy.Pulling(w.req.Image); err != nil && denial != nil && w.entitled != d {
		w.log.WithError(err).Info("the user is told that it is not at hand")
		return nil, denial
	}
	return ready, err
}

// find finds d, which the user has to be entitled to, or pulls it, and uses it.
func (w *worker) find(ctx context.Context, st *store.Store, d store.Digest) (*jobstate.Ready, error) {
	im, err := st.Get(d)
	w.hit, w.found, w.inPlace = err == nil, nil, nil
	if w.hit {
		w.found, err = statDir(im)
	}
	ok := false
	if err == nil {
		ok, err = w.mayUseImage(ctx, im)
	}
	if errors.Is(err, store.ErrNotFound) || err == nil && !ok {
		w.hit, w.found = false, nil
		if err = w.permitPull(ctx, d); err == nil {
			im, err = w.pull(ctx, st, d)
		}
	}
	if err == nil {
		err = w.permitImage(ctx, im)
	}
	if err != nil {
		return nil, err
	}
	if w.hit && w.suspect(im) {
		return w.verified(ctx, st, im)
	}
	return w.use(ctx, st, im)
}

func statDir(im store.Image) (os.FileInfo, error) {
	info, err := os.Stat(im.Dir())
	if errors.Is(err, os.ErrNotExist) {
		err = store.ErrNotFound
	}
	return info, err
}

// digest says which image is meant: the one that submission pinned, else one
// whose digest the reference names and that is at hand, else the registry says;
// of a tag, on one node for all of the job's, see jobDigest.
func (w *worker) digest(ctx context.Context, st *store.Store) (store.Digest, error) {
	if w.req.Digest != "" {
		return store.ParseDigest(w.req.Digest)
	}
	ref, err := imagecache.ParseReference(w.req.Image)
	if err != nil {
		return store.Digest{}, err
	}
	if !ref.Digest().IsZero() {
		if w.atHand(ctx, st, ref.Digest()) {
			return ref.Digest(), nil
		}
		return w.resolve(ctx)
	}
	return w.jobDigest(ctx)
}

// atHand says whether d is in a store and the user may use it, so that no
// registry has to be asked.
func (w *worker) atHand(ctx context.Context, st *store.Store, d store.Digest) bool {
	im, err := st.Get(d)
	if err != nil {
		return w.clusterGrants(ctx, d)
	}
	a, err := im.Access()
	return err == nil && w.mayUseNow(d, a)
}

// resolve asks the registry.
func (w *worker) resolve(ctx context.Context) (d store.Digest, err error) {
	err = w.asking(ctx, func() error {
		f := w.fetcher("/")
		err := f.run(ctx, FetchRequest{Image: w.req.Image, Platform: w.platform})
		d = f.digest
		return err
	})
	if err == nil && d.IsZero() {
		err = &fault.Error{Op: "resolve", Arg: w.req.Image, Blame: fault.Bug, Err: errors.New("the fetcher named no digest")}
	}
	return d, err
}

// pull gets the image into the store. Workers of other jobs, and of other
// nodes' programs on this store, wait for the one that holds the image's lock;
// when that one is killed, the next takes over from the start.
func (w *worker) pull(ctx context.Context, st *store.Store, d store.Digest) (store.Image, error) {
	locked := w.phases.begin("lock")
	lock, err := st.Lock(ctx, d, func() { w.say(imagecache.Progress{Phase: imagecache.PhaseWait}) })
	locked()
	if err != nil {
		return store.Image{}, err
	}
	defer func() {
		if err := lock.Release(); err != nil {
			w.log.WithError(err).Warn("release the image's lock")
		}
	}()
	defer w.phases.begin("get")()
	if im, err := st.Get(d); err == nil {
		ok, err := w.mayUseImage(ctx, im)
		if err == nil && !ok {
			err = w.pullToo(ctx, st, lock, im)
		}
		return im, err
	}
	im, err := w.fromCluster(ctx, st, lock, d)
	if errors.Is(err, store.ErrNotFound) {
		im, err = w.fetchAndPublish(ctx, st, lock, d)
	}
	return im, err
}

func (w *worker) fetchAndPublish(ctx context.Context, st *store.Store, lock *store.Lock, d store.Digest) (store.Image, error) {
	work, err := w.fetchForUser(ctx, st, lock, d)
	if err != nil {
		return store.Image{}, err
	}
	defer work.Folder.Close()
	defer work.Rootfs.Close()
	w.say(imagecache.Progress{Phase: imagecache.PhasePublish})
	im, err := st.Publish(work, d)
	if err == nil {
		w.noteGood(im, lastSquashfsError())
		w.trim(ctx, st)
		w.noteCost(im)
		err = w.entitle(d, work.Origin.Public)
	}
	return im, err
}

// pullToo pulls an image that the store has from a repository that it does not
// know, as if it had none: then all of it is there, too. What came is as good
// as what the store has, and goes.
func (w *worker) pullToo(ctx context.Context, st *store.Store, lock *store.Lock, im store.Image) error {
	work, err := w.fetchForUser(ctx, st, lock, im.Digest())
	if err != nil {
		return err
	}
	defer work.Folder.Close()
	defer work.Rootfs.Close()
	if err := im.AddOrigin(*work.Origin, w.canonical()); err != nil {
		return err
	}
	return w.entitle(im.Digest(), work.Origin.Public)
}

// fetchForUser has the account fetch d, with the user's login if need be, and
// says by whose rights it was.
func (w *worker) fetchForUser(ctx context.Context, st *store.Store, lock *store.Lock, d store.Digest) (work store.Work, err error) {
	if err := w.cfg.Policy.Pulling(w.req.Image); err != nil {
		return store.Work{}, err
	}
	uid, gid, err := w.cfg.account()
	if err != nil {
		return store.Work{}, errAccount(w.cfg.Account, err)
	}
	err = w.asking(ctx, func() error {
		work, err = w.fetchInto(ctx, st, lock, d, uid, gid)
		return err
	})
	return work, err
}

func errAccount(name string, err error) error {
	return fault.Wrap("use the account", name, fault.Site,
		"the administrator creates it on every node: useradd --system --no-create-home "+name, err)
}

// tellEvery is how often the tasks can hear something new.
const tellEvery = time.Second

// say records progress for the tasks: each step at once, the rest not more often
// than they can hear it. Failing to is no reason to stop: when the job's folder
// is gone, the next step finds out.
func (w *worker) say(p imagecache.Progress) {
	w.telling.Lock()
	defer w.telling.Unlock()
	if w.watch != nil {
		w.watch(p)
	}
	if begins := w.meter.Update(p); begins || time.Since(w.said) >= tellEvery {
		w.tellStatus()
	}
}

func (w *worker) tellStatus() {
	w.said = time.Now()
	w.tell(progressLine(w.req.Image, w.meter.Status()))
	if w.shout != nil {
		w.shout(progressLine("it", w.meter.Status()))
	}
}

// keepTelling repeats where the step at hand stands until stop is called: what
// say has left out, and that nothing more arrives.
func (w *worker) keepTelling() (stop func()) {
	done, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		tick := time.NewTicker(tellEvery)
		defer tick.Stop()
		for {
			select {
			case <-done:
				return
			case <-tick.C:
			}
			w.telling.Lock()
			if !w.said.IsZero() {
				w.tellStatus()
			}
			w.telling.Unlock()
		}
	}()
	return func() { close(done); <-ended }
}

// progressLine says where a pull is, in one line.
func progressLine(image string, s imagecache.Status) string {
	text := "preparing " + image
	switch s.Phase {
	case imagecache.PhaseResolve:
		return "asking the registry for " + image
	case imagecache.PhaseWait:
		return "waiting: another job on this node pulls " + image
	case imagecache.PhasePull, imagecache.PhaseUnpack:
		text = "getting " + image
	case imagecache.PhaseSquash:
		text = "converting " + image
	case imagecache.PhasePublish:
		return "storing " + image
	}
	if more := s.String(); more != "" {
		text += ": " + more
	}
	return text
}
