package prolog

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"os/user"
	"slices"
	"strconv"

	"github.com/berth-hpc/berth/fault"
	"github.com/berth-hpc/berth/imagecache"
	"github.com/berth-hpc/berth/imagecache/store"
	"github.com/berth-hpc/berth/policy"
	"github.com/berth-hpc/berth/prolog/jobstate"
)

// The site's policy is applied by root, to the name by which a job asks for an
// image and to whom the scheduler says the job belongs:
//
//	permit       before anything is done for the job
//	permitPull   before an image that is not at hand is pulled
//	permitImage  before an image at hand is used, just pulled or not: the rules
//	             may have changed, and sizes are known now
//
// A digest alone proves nothing here: an image that the store has from one
// repository is used under the name of another only when that one is known to
// have it, or a rule could be led round by an allowed name with a denied
// image's digest.

// permit applies the rules to the job's image, its user and itself.
func (w *worker) permit(ctx context.Context) error {
	if !w.cfg.Policy.Restricts() {
		return nil
	}
	who, err := w.decide()
	if err == nil && w.decision.JobUnknown {
		if who.Job, err = w.askForJob(ctx); err == nil {
			w.decideFor(who)
		}
	}
	if err != nil {
		return err
	}
	return w.decision.Err()
}

// decide applies the rules as far as is known at hand.
func (w *worker) decide() (who policy.Subject, err error) {
	if w.ref, err = imagecache.ParseReference(w.req.Image); err != nil {
		return who, err
	}
	if who, err = subject(w.cfg.Policy, w.req.UID, w.req.GID); err != nil {
		return who, err
	}
	who.Job = jobstate.KnownJob(w.cfg.RunDir, w.req.Job, w.req.UID)
	w.decideFor(who)
	return who, nil
}

func (w *worker) decideFor(who policy.Subject) {
	d := w.cfg.Policy.Decide(imageOf(w.ref), who)
	w.decision = &d
}

func imageOf(ref imagecache.Reference) policy.Image {
	return policy.Image{Registry: ref.Host(), Repository: ref.Repository()}
}

// subject looks up who a job's user is, as far as the rules need it.
func subject(p policy.Policy, uid, gid uint32) (policy.Subject, error) {
	who := policy.Subject{UID: uid}
	if !p.AsksForUsers() {
		return who, nil
	}
	u, err := user.LookupId(strconv.FormatUint(uint64(uid), 10))
	groups := []string{strconv.FormatUint(uint64(gid), 10)}
	switch unknown := user.UnknownUserIdError(0); {
	case errors.As(err, &unknown): // in no group but the job's
	case err == nil:
		who.User = u.Username
		var more []string
		if more, err = u.GroupIds(); err != nil {
			return who, errSubject(uid, err)
		}
		groups = append(groups, more...)
	default:
		return who, errSubject(uid, err)
	}
	who.Groups, err = withNames(groups)
	return who, errSubject(uid, err)
}

// withNames adds the names of groups to their numbers.
func withNames(numbers []string) ([]string, error) {
	all := slices.Clone(numbers)
	for _, n := range numbers {
		g, err := user.LookupGroupId(n)
		if unknown := user.UnknownGroupIdError(""); errors.As(err, &unknown) {
			continue
		}
		if err != nil {
			return nil, err
		}
		all = append(all, g.Name)
	}
	return all, nil
}

func errSubject(uid uint32, err error) error {
	return fault.Wrap("look up the user", strconv.FormatUint(uint64(uid), 10), fault.Site,
		"ask your administrator to look at the user database of this node", err)
}

// permitPull says whether d may be pulled, which the node does not have.
func (w *worker) permitPull(ctx context.Context, d store.Digest) error {
	if w.decision == nil || w.clusterHas(ctx, d) {
		return nil
	}
	if err := w.cfg.Policy.Pulling(w.req.Image); err != nil {
		return err
	}
	if r := w.decision.Rule; r != nil && r.MaxCompressed > 0 {
		bytes, _, err := w.measure(ctx, d)
		if err != nil {
			return err
		}
		if err := w.decision.Compressed(bytes); err != nil {
			return err
		}
	}
	return w.verifySigned(ctx, d)
}

// measure has the fetcher ask the repository that the job names for d, and
// returns how much its layers take, and whether everybody may know: proof that it
// has it.
func (w *worker) measure(ctx context.Context, d store.Digest) (bytes int64, public bool, err error) {
	var f *fetcher
	err = w.asking(ctx, func() error {
		f = w.fetcher("/")
		return f.run(ctx, FetchRequest{Image: w.req.Image, Digest: d, Measure: true})
	})
	if err != nil {
		return 0, false, err
	}
	if f.compressed == nil {
		return 0, false, &fault.Error{Op: "measure", Arg: w.req.Image, Blame: fault.Bug, Err: errors.New("the fetcher named no size")}
	}
	return *f.compressed, f.public, nil
}

// permitImage says whether im, which is at hand, may be used under the name
// that the job has for it.
func (w *worker) permitImage(ctx context.Context, im store.Image) error {
	known, signed, err := w.permitKnown(im)
	if err == nil && !known {
		err = w.permitName(ctx, im)
	}
	if err == nil && !signed {
		err = w.permitSigned(ctx, im)
	}
	return err
}

// permitName asks the repository that the job names for im.
func (w *worker) permitName(ctx context.Context, im store.Image) error {
	_, public, err := w.measure(ctx, im.Digest())
	if err != nil {
		return fault.Wrap("use the image", w.req.Image, fault.Site, "", err)
	}
	// What everybody can read must not name repositories that not everybody may.
	if a, err := im.Access(); !public && (err != nil || a.Public) {
		return nil
	}
	if err := im.Remember(w.ref.String()); err != nil {
		w.log.WithError(err).Warn("remember the image's name") // then it is asked for again
	}
	return nil
}

// permitKnown is permitImage without a network. It is not known where the
// image is only at hand under other names, and not signed where it needs a
// signature that is not in its record.
func (w *worker) permitKnown(im store.Image) (known, signed bool, err error) {
	if w.decision == nil {
		return true, true, nil
	}
	info, err := os.Stat(im.Rootfs())
	if err != nil {
		return false, false, gone(err)
	}
	r, err := im.Record()
	if err != nil {
		return false, false, gone(err)
	}
	if err := errors.Join(w.decision.Compressed(r.Compressed), w.decision.Size(info.Size())); err != nil {
		return false, false, err
	}
	signed, err = w.hasSignature(r.Signatures)
	return slices.ContainsFunc(r.References, w.isRepository), signed, err
}

// gone says that an image was removed meanwhile, if that is why.
func gone(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return store.ErrNotFound
	}
	return err
}

// isRepository says whether an image's recorded name has the repository of the
// one that the job asks for.
func (w *worker) isRepository(recorded string) bool {
	ref, err := imagecache.ParseReference(recorded)
	return err == nil && imageOf(ref).String() == imageOf(w.ref).String()
}

// permitAtOnce says whether im may be used for certain, by what is at hand. It
// looks no users up and asks no scheduler: they may hang, and a prolog must not.
func (w *worker) permitAtOnce(im store.Image) bool {
	if w.cfg.Policy.Restricts() {
		if w.cfg.Policy.AsksForUsers() {
			return false
		}
		if _, err := w.decide(); err != nil || w.decision.JobUnknown || !w.decision.Allowed() {
			return false
		}
	}
	known, signed, err := w.permitKnown(im)
	return known && signed && err == nil
}

// CheckPolicy says what the policy of this node decides for an image and a user, as
// for a job of theirs; nil for any job.
func CheckPolicy(p policy.Policy, image string, uid, gid uint32, job *policy.Job) (policy.Decision, error) {
	ref, err := imagecache.ParseReference(image)
	if err != nil {
		return policy.Decision{}, err
	}
	if ref.Kind() != imagecache.Registry {
		return policy.Decision{}, &fault.Error{
			Op: "check the policy", Arg: image, Blame: fault.User, Err: errors.New("it is a file of yours, for which there are no rules"),
			Remedy: "name an image in a registry",
		}
	}
	who, err := subject(p, uid, gid)
	if err != nil {
		return policy.Decision{}, err
	}
	who.Job = job
	return p.Decide(imageOf(ref), who), nil
}
