package inside

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/berth-hpc/berth/launcher"
	"github.com/berth-hpc/berth/launcher/changes"
)

// How long look waits for a container that somebody is making, and how often it
// looks.
const (
	keptPatience = 30 * time.Second
	keptPoll     = 20 * time.Millisecond
)

// A kept is a container under a name that this process uses alone.
type kept struct {
	*changes.Container
	lock *changes.Lock
	made bool // just now
}

// keptFolder is the folder below which the user's containers are, job that for
// those of the job, which is the same where they outlive it.
func keptFolder(req *launcher.Request) (folder, job string, err error) {
	folder, known := launcher.Expand(req.Kept.Folder, pathValues(req))
	if !known || !filepath.IsAbs(folder) {
		return "", "", siteError(fmt.Sprintf("find the folder of named containers: container.names_dir is %q", req.Kept.Folder), keptRemedy)
	}
	job = folder
	if req.Kept.OfJob {
		job = filepath.Join(folder, "job-"+req.Job.ID)
	}
	return folder, job, nil
}

const keptRemedy = "ask the administrator to correct container.names_dir: a folder on a local disk (ext4, xfs, btrfs) of the node, where users may make folders"

// makeOwn makes dir, and refuses one in which somebody else could put files: the
// folder may be below one that is everybody's, such as /var/tmp.
func makeOwn(dir string) error {
	err := os.MkdirAll(dir, 0o700)
	if err == nil {
		err = changes.CheckOwn(dir)
	}
	if err != nil {
		return siteError(fmt.Sprintf("keep containers in %s: %v", dir, bare(err)), keptRemedy)
	}
	return nil
}

// look answers Kept.Look.
func look(channel *os.File, req *launcher.Request) error {
	lookUp(&req.User)
	if step, err := stepOf(req.Kept.Name); step != nil || err != nil {
		return lookForStep(channel, req, step, err)
	}
	if err := changes.CheckName(req.Kept.Name); err != nil {
		return err
	}
	_, dir, err := keptFolder(req)
	if err != nil {
		return err
	}
	for deadline := time.Now().Add(keptPatience); ; <-time.After(keptPoll) {
		done, err := lookOnce(channel, req, changes.In(dir))
		if done || err != nil {
			return err
		}
		if time.Now().After(deadline) {
			return inUse(req, "something on this node")
		}
	}
}

// lookOnce is not done while somebody is about to start the container, or has
// just left it.
func lookOnce(channel *os.File, req *launcher.Request, containers changes.Containers) (done bool, err error) {
	running, err := findKept(req)
	if err != nil {
		return true, err
	}
	if running != nil {
		return true, joinKept(channel, req, running)
	}
	c, err := containers.Get(req.Kept.Name)
	switch {
	case errors.Is(err, changes.ErrNotFound) && req.Kept.Mode == launcher.KeptExec:
		return true, notRunning(req)
	case errors.Is(err, changes.ErrNotFound):
		return true, launcher.SendReply(channel, &launcher.Reply{Found: &launcher.Found{}})
	case err != nil:
		return true, err
	case req.Kept.Mode == launcher.KeptCreate:
		return true, keptExists(req)
	case c.InUse():
		if job := c.UsedBy(); job != "" && job != req.Job.ID {
			return true, inUse(req, "job "+job+" on this node")
		}
		return false, nil
	case req.Kept.Mode == launcher.KeptExec:
		return true, notRunning(req)
	}
	return true, launcher.SendReply(channel, &launcher.Reply{Found: &launcher.Found{Reference: c.Reference, Digest: c.Digest.String()}})
}

// findKept finds the container if it runs in this job. What runs in another job
// of the user's cannot be seen from here: it is in other user namespaces.
func findKept(req *launcher.Request) (*launcher.Running, error) {
	all, err := launcher.FindRunning()
	for _, r := range all {
		if r.Name == req.Kept.Name && r.Job == req.Job.ID {
			return r, nil
		}
	}
	return nil, err
}

// joinKept hands over what a task needs to join a container that runs.
func joinKept(channel *os.File, req *launcher.Request, r *launcher.Running) error {
	switch req.Kept.Mode {
	case launcher.KeptCreate:
		return keptExists(req)
	case launcher.KeptNoExec:
		return inUse(req, "this job, and no_exec does not let this step join it")
	}
	if err := r.Require(req.Unshare); err != nil {
		return userError(fmt.Sprintf("join container %s: %v", req.Kept.Name, err), "leave --container-unshare out, or take another name")
	}
	c, users, err := r.Open()
	if err != nil {
		return err
	}
	files := []*os.File{c.Mount, c.Result, users.Outer, users.Inner}
	for _, ns := range c.Own {
		files = append(files, ns.File)
	}
	found := &launcher.Found{Running: true, Reference: r.Image, Remap: r.Remap, Unshare: r.Unshare}
	reply := &launcher.Reply{Found: found}
	if req.Save {
		folder, err := openChanges(req, found)
		if err != nil {
			closeAll(files)
			return err
		}
		reply.Changes, files = true, append(files, folder)
	}
	defer closeAll(files)
	return launcher.SendReply(channel, reply, files...)
}

// openChanges opens the folder of a container that runs under its name, and
// says of which image it was made.
func openChanges(req *launcher.Request, found *launcher.Found) (*os.File, error) {
	_, dir, err := keptFolder(req)
	if err != nil {
		return nil, err
	}
	c, err := changes.In(dir).Get(req.Kept.Name)
	if err != nil {
		return nil, err
	}
	found.Reference, found.Digest = c.Reference, c.Digest.String()
	if c.Digest.IsZero() {
		found.Digest = ""
	}
	return os.Open(c.Dir())
}

// stepOf reads a name JOB.STEP; nil for any other.
func stepOf(name string) (*launcher.Label, error) {
	form, err := regexp.Compile(`^([0-9]+)\.([0-9]+|batch|interactive)$`)
	if err != nil {
		return nil, err
	}
	parts := form.FindStringSubmatch(name)
	if parts == nil {
		return nil, nil
	}
	return &launcher.Label{Job: parts[1], Step: parts[2]}, nil
}

// lookForStep joins the container of a step of this job.
func lookForStep(channel *os.File, req *launcher.Request, step *launcher.Label, err error) error {
	if err != nil {
		return err
	}
	if step.Job != req.Job.ID {
		return userError(fmt.Sprintf("container %s is not of this job, %s", req.Kept.Name, req.Job.ID), "join it by berth exec "+req.Kept.Name+" -- COMMAND")
	}
	if req.Save {
		return userError("save container "+req.Kept.Name+": it belongs to its step, which alone can save it", "give --container-save to that step")
	}
	all, err := launcher.FindRunning()
	if err != nil {
		return err
	}
	for _, r := range all {
		if r.Job == step.Job && r.Step == step.Step {
			return joinKept(channel, req, r)
		}
	}
	return notRunning(req)
}

// keep takes the container, or makes it if there is none.
func keep(req *launcher.Request) (*kept, error) {
	containers, err := prepareNames(req)
	if err != nil {
		return nil, err
	}
	k := req.Kept
	c, err := containers.Get(k.Name)
	switch {
	case errors.Is(err, changes.ErrNotFound):
		return makeKept(containers, req)
	case err != nil:
		return nil, err
	case k.Mode == launcher.KeptCreate:
		return nil, keptExists(req)
	case c.Reference != k.Reference || c.Digest.String() != k.Digest:
		return nil, launcher.ErrKeptInUse // it was removed and made again
	}
	lock, err := c.Lock(context.Background())
	return used(&kept{c, lock, false}, req, err)
}

// prepareNames makes the folder of containers, and room in it.
func prepareNames(req *launcher.Request) (containers changes.Containers, err error) {
	folder, dir, err := keptFolder(req)
	if err != nil {
		return containers, err
	}
	if err := errors.Join(makeOwn(folder), makeOwn(dir)); err != nil {
		return containers, err
	}
	containers = changes.In(dir)
	containers.Sweep()
	if req.Kept.Expiry > 0 && !req.Kept.OfJob {
		if err := containers.Expire(req.Kept.Expiry); err != nil {
			return containers, err
		}
	}
	return containers, checkQuota(req.Kept.Quota, folder)
}

func makeKept(containers changes.Containers, req *launcher.Request) (*kept, error) {
	k := req.Kept
	record := changes.Record{Name: k.Name, Reference: k.Reference, Created: time.Now().UTC()}
	if err := record.Digest.UnmarshalText([]byte(k.Digest)); err != nil {
		return nil, err
	}
	c, lock, err := containers.Make(context.Background(), record)
	return used(&kept{c, lock, true}, req, err)
}

// used notes who uses a container that was locked.
func used(k *kept, req *launcher.Request, err error) (*kept, error) {
	switch {
	case errors.Is(err, changes.ErrInUse):
		return nil, launcher.ErrKeptInUse
	case err != nil:
		return nil, err
	}
	return k, k.lock.Note(req.Job.ID)
}

// checkQuota counts what there is before another container starts: one that
// runs is bounded by the disk alone.
func checkQuota(quota int64, folder string) error {
	if quota == 0 {
		return nil
	}
	jobs, err := filepath.Glob(filepath.Join(strings.NewReplacer(`\`, `\\`, "*", `\*`, "?", `\?`, "[", `\[`).Replace(folder), "job-*"))
	var bytes int64
	for _, dir := range append(jobs, folder) {
		n, sizeErr := changes.In(dir).Size()
		bytes, err = bytes+n, errors.Join(err, sizeErr)
	}
	if err != nil || bytes < quota {
		return err
	}
	return userError(fmt.Sprintf("your named containers on this node take %d MB, and %d MB are allowed", bytes/1_000_000, quota/1_000_000),
		"on this node, list them (berth containers) and remove some (berth containers rm NAME)")
}

// forget removes the containers that go with the job.
func forget(req *launcher.Request) error {
	lookUp(&req.User)
	_, dir, err := keptFolder(req)
	if err != nil || !req.Kept.OfJob {
		return err
	}
	if err := changes.CheckOwn(dir); errors.Is(err, os.ErrNotExist) {
		return nil
	} else if err != nil {
		return err
	}
	return errors.Join(changes.In(dir).RemoveAll(), os.Remove(dir))
}

// handKeeper has the lock kept until the container has ended.
func (r *rootfs) handKeeper(channel *os.File) error {
	if r.kept == nil {
		return nil
	}
	end, err := r.watchEnd()
	if err != nil {
		return err
	}
	defer end.Close()
	return launcher.SendReply(channel, &launcher.Reply{Held: true}, end, r.kept.lock.File)
}

// dropKept removes a container that was made for nothing.
func (r *rootfs) dropKept() error {
	if r.kept == nil || !r.kept.made {
		return nil
	}
	_ = unix.Unmount(r.path, unix.MNT_DETACH)
	return r.kept.Remove()
}

func notRunning(req *launcher.Request) error {
	host, _ := os.Hostname()
	return userError(fmt.Sprintf("container %s does not run in this job on %s", req.Kept.Name, host),
		"start it by a step without :exec; a container is on the node where it was made")
}

func keptExists(req *launcher.Request) error {
	return userError(fmt.Sprintf("container %s exists already on this node", req.Kept.Name),
		"leave :create out to go on with it, take another name, or remove it on this node: berth containers rm "+req.Kept.Name)
}

func inUse(req *launcher.Request, who string) error {
	return userError(fmt.Sprintf("container %s is in use by %s", req.Kept.Name, who),
		"wait until that has ended (sbatch --dependency), or take another name; a container is used by one job at a time")
}
