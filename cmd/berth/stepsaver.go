package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/berth-hpc/berth/cmd/internal/config"
	"github.com/berth-hpc/berth/fault"
	"github.com/berth-hpc/berth/imagecache"
	"github.com/berth-hpc/berth/imagecache/store"
	"github.com/berth-hpc/berth/launcher/changes"
)

// pushCheckLimit bounds the question whether a registry takes an image, before
// the task starts.
const pushCheckLimit = 20 * time.Second

// A stepSaver saves the container of one step: to a file, or to a registry.
type stepSaver struct {
	*session
	cfg    *config.Config
	step   *savedStep
	path   string               // absolute; "" for a registry
	to     imagecache.Reference // of the registry
	config store.Config         // of the image below the changes
}

// newStepSaver reads what may change until the step ends, and says what can be
// known to be wrong before it begins.
func (s *session) newStepSaver(ctx context.Context, st *savedStep) (*stepSaver, error) {
	v := &stepSaver{session: s, step: st}
	var err error
	if v.cfg, err = s.settings(); err != nil {
		return nil, err
	}
	if err := v.openBase(); err != nil {
		return nil, err
	}
	if name, ok := strings.CutPrefix(st.target, "docker://"); ok {
		return v, v.aim(ctx, name)
	}
	v.path, err = filepath.Abs(st.target)
	return v, err
}

// aim takes a registry as the target, if it lets the user write there. One that
// does not answer now may do so later.
func (v *stepSaver) aim(ctx context.Context, name string) error {
	var err error
	if v.to, err = imagecache.ParseReference(name); err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	time.AfterFunc(pushCheckLimit, cancel) // not at once: the library gives the upload up behind our back
	err = imagecache.CheckPush(ctx, v.to, v.pushOptions(nil))
	if err != nil && fault.Of(err) != fault.User {
		fmt.Fprintf(v.stderr, "berth: %s\n", printable(err.Error()))
		return nil
	}
	return err
}

func (v *stepSaver) pushOptions(progress imagecache.ProgressFunc) imagecache.PushOptions {
	return imagecache.PushOptions{Network: v.network(v.cfg), Parallel: v.cfg.Network.Parallel, Progress: progress}
}

// openBase opens an image of the user's own, and reads the image's config.
func (v *stepSaver) openBase() error {
	if v.step.base == nil {
		f, err := os.Open(v.step.image)
		if err != nil {
			return fault.Wrap("open image", v.step.image, fault.User, "name an image that you may read on the node", err)
		}
		v.step.base = f
		v.config, err = imagecache.TreeConfig(v.step.image)
		return err
	}
	if v.step.config == nil {
		return nil
	}
	var m store.Manifest
	err := json.NewDecoder(v.step.config).Decode(&m)
	v.config = m.Config
	return fault.Wrap("read the image's config", "", fault.Bug, "", err)
}

// name is where the container goes, for people.
func (v *stepSaver) name() string {
	if v.path == "" {
		return v.to.String()
	}
	return v.path
}

func (v *stepSaver) save(ctx context.Context) error {
	changed, err := v.changed()
	if err != nil {
		return fault.Wrap("read what was changed in the container", "", fault.Bug, "", err)
	}
	show := v.newProgress(v.name())
	defer show.Close()
	said := ""
	if v.path != "" {
		err = imagecache.SaveSquashfs(ctx, v.step.base, changed, v.config, v.path, limits(v.cfg), show.Update)
	} else {
		said, err = v.push(ctx, changed, show.Update)
	}
	if err != nil {
		return err
	}
	show.Close()
	fmt.Fprintf(v.stderr, "berth: saved the container to %s%s\n", printable(v.name()), said)
	return nil
}

// changed is nil where nothing was. The folder may be one that no path leads to,
// so that it becomes the current one.
func (v *stepSaver) changed() (*imagecache.Changes, error) {
	if v.step.changes == nil {
		return nil, nil
	}
	if err := unix.Fchdir(int(v.step.changes.Fd())); err != nil {
		return nil, os.NewSyscallError("fchdir", err)
	}
	points, err := changes.Points(".")
	if err != nil {
		return nil, err
	}
	c := &imagecache.Changes{
		Upper: changes.UpperName, Skip: points, Temp: os.TempDir(), CreatedBy: v.step.createdBy(v.env), Privileged: packPrivileged,
	}
	if empty, err := c.IsEmpty(); empty || err != nil {
		return nil, err
	}
	return c, nil
}

// createdBy is for the image's history.
func (st *savedStep) createdBy(env func(string) string) string {
	return fmt.Sprintf("Slurm job %s, step %s", env("SLURM_JOB_ID"), env("SLURM_STEP_ID"))
}

// push sends the image, with a layer of changes if there are any, and returns
// words about it.
func (v *stepSaver) push(ctx context.Context, changed *imagecache.Changes, progress imagecache.ProgressFunc) (string, error) {
	ref, err := imagecache.ParseReference(v.step.image)
	if err != nil {
		return "", err
	}
	var digest store.Digest
	if v.step.digest != "" {
		if digest, err = store.ParseDigest(v.step.digest); err != nil {
			return "", err
		}
	}
	original, err := imagecache.OpenOriginal(ctx, ref, digest, imagecache.Platform{}, v.network(v.cfg))
	if err != nil {
		return "", err
	}
	if changed == nil {
		digest, err = imagecache.Push(ctx, original, v.to, v.pushOptions(progress))
		return " as " + digest.String(), err
	}
	im, err := imagecache.AddChanges(ctx, original, *changed)
	if err != nil {
		return "", err
	}
	defer im.Close()
	digest, err = imagecache.Push(ctx, im, v.to, v.pushOptions(progress))
	return " as " + digest.String(), err
}
