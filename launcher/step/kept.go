package step

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"

	"github.com/berth-hpc/berth/fault"
	"github.com/berth-hpc/berth/launcher"
	"github.com/sirupsen/logrus"
)

// createKept is create for a container with a name: what there is of it decides
// whether the step joins it, and which image it needs.
func createKept(ctx context.Context, log logrus.FieldLogger, report *Report, tasks *tasks, node Node, set Settings, made <-chan madeNamespaces) (*container, error) {
	req := report.Request
	view, err := tasks.firstView(ctx)
	if err != nil {
		return nil, err
	}
	ns := <-made
	if ns.err != nil {
		return nil, namespacesFault(ns.err)
	}
	k := &keptStep{req: req, view: view, users: ns.users, node: node, set: set}
	k.wait = func(asked *Request) (Image, error) {
		defer report.waited()
		return waitForImage(ctx, asked, tasks, node)
	}
	k.building = report.building
	for ctx.Err() == nil {
		c, err := k.try(ctx)
		if errors.Is(err, launcher.ErrKeptInUse) {
			continue // Look waits for whoever was faster
		}
		if err != nil {
			ns.users.Close()
			return nil, err
		}
		log.WithFields(logrus.Fields{"name": fault.Clean(req.Kept.Name), "joined": c.joined}).Info("container ready")
		return c, nil
	}
	return nil, ctx.Err()
}

// A keptStep is a step that wants a container with a name.
type keptStep struct {
	req   *Request
	view  *view
	users *launcher.UserNamespaces
	node  Node
	set   Settings
	wait  func(asked *Request) (Image, error)

	building func() (end func())
}

func (k *keptStep) try(ctx context.Context) (*container, error) {
	found, err := k.look(ctx)
	if err != nil {
		return nil, err
	}
	if found.Running {
		return k.join(found)
	}
	asked := *k.req // what was found does not outlive this attempt
	notes, err := asked.takeFound(found, k.view.job.Dir)
	if err != nil {
		return nil, err
	}
	image, err := asked.image(k.set, func() (Image, error) { return k.wait(&asked) })
	if err != nil {
		return nil, err
	}
	c, err := k.make(ctx, &asked, image)
	if err != nil {
		return nil, err
	}
	saved, err := newSaved(&asked, k.view, c, image)
	if err != nil {
		return nil, err
	}
	return &container{users: k.users, Container: c, notes: append(notes, asked.notes(k.view.job)...), saved: saved}, nil
}

// join gives the tasks a container that runs. To save it takes the image below
// its changes, too.
func (k *keptStep) join(found *launcher.Found) (*container, error) {
	c := &container{users: found.Users, Container: found.Container, joined: true, remap: found.Remap, notes: k.req.joinNotes()}
	if k.req.Save != "" {
		asked := *k.req
		asked.Image, asked.Digest = found.Reference, found.Digest
		image, err := asked.image(k.set, func() (Image, error) { return k.wait(&asked) })
		if err == nil {
			c.saved, err = newSaved(&asked, k.view, found.Container, image)
		}
		if err != nil {
			return nil, err
		}
	}
	k.users.Close()
	return c, nil
}

// make makes or starts the container, whose image is decided.
func (k *keptStep) make(ctx context.Context, asked *Request, image Image) (*launcher.Container, error) {
	if image != nil {
		asked.Kept.Digest = image.Digest()
	}
	if k.set.Kept.OfJob {
		if err := k.node.Kept(asked); err != nil {
			return nil, fault.Wrap("note the container", "", fault.Site, "", err)
		}
	}
	defer k.building()()
	return build(ctx, asked, k.view, k.users, image, k.node, k.set)
}

func (k *keptStep) look(ctx context.Context) (*launcher.Found, error) {
	c := &launcher.Creation{
		Exe: k.set.Exe, Users: k.users, Request: k.req.launcherRequest(k.view, k.set),
		Stage: &launcher.Stage{View: k.view.mounts, Dir: k.set.RunDir},
	}
	c.Request.Kept.Look = true
	return c.Look(ctx)
}

// takeFound decides which image the container has: that of its changes, which
// fit no other, or the one that was asked for.
func (r *Request) takeFound(found *launcher.Found, dir string) (notes []string, err error) {
	reference, kept := r.Image, *r.Kept
	if r.imageIsFile() && !filepath.IsAbs(reference) {
		reference = filepath.Join(dir, reference)
	}
	r.Kept = &kept
	switch {
	case found.Reference == "" && reference == "":
		return nil, &fault.Error{
			Op: "start container", Arg: fault.Clean(kept.Name), Blame: fault.User,
			Err:    errors.New("there is no such container on this node, and no --container-image says what to make it of"),
			Remedy: "give --container-image; a named container is on the node where it was made (sbatch --nodelist)",
		}
	case found.Reference == "":
		r.Image, kept.Reference = reference, reference
		return nil, nil
	case reference != "" && reference != found.Reference:
		return nil, &fault.Error{
			Op: "start container", Arg: fault.Clean(kept.Name), Blame: fault.User,
			Err:    fmt.Errorf("it is made from %s, not from %s", fault.Clean(found.Reference), fault.Clean(reference)),
			Remedy: "leave --container-image out, take another name, or remove the container on this node: berth containers rm",
		}
	}
	if r.Digest != "" && r.Digest != found.Digest {
		notes = append(notes, fmt.Sprintf("container %s stays with the image that it was made from, %s; %s means another one now",
			kept.Name, found.Digest, reference))
	}
	r.Image, r.Digest, kept.Reference = found.Reference, found.Digest, found.Reference
	return notes, nil
}

// joinNotes are remarks on what does not count in a container that runs.
func (r *Request) joinNotes() []string {
	if len(r.Mounts) == 0 {
		return nil
	}
	return []string{fmt.Sprintf("joining the running container %s: ignoring --container-mounts", fault.Clean(r.Kept.Name))}
}
