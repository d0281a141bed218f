// Package lend lets a user's own `berth run` on a managed node use the node's
// store: one root process per request (`berth node mount-request`), started by
// systemd for a connection to berth-mount.socket, makes the container as it does
// for a job, and hands its namespaces back.
//
//	the user    -> digest, image, mounts …; a descriptor of their mount namespace
//	root        -> the image's mount, if the user may use it; namespaces; a stage
//	the user    <- the container's namespaces, or why not
//
// Nothing but the container's namespaces goes to the user: a copy of the
// image's mount would be one whose flags the user could change. Who asks is the
// kernel's word (SO_PEERCRED, SO_PEERGROUPS), also for the root of a user
// namespace. All else that comes is data: bounded, passed on to a process of
// the user's.
package lend

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"strings"

	"github.com/berth-hpc/berth/launcher"
	"github.com/berth-hpc/berth/launcher/wire"
)

// A Request is what a user asks for. Of the container, it says what Lendable
// lets through.
type Request struct {
	Image     string // the reference as typed
	Digest    string // of the image
	Container launcher.Request
}

// Lendable says whether a container can be asked for: only what is read-only
// and whose description has no more than a request carries.
func Lendable(r *launcher.Request) bool {
	want := *r
	// Root's to say, or looked up.
	want.User, want.Work, want.Image, want.Site, want.MountDir = launcher.User{}, "", launcher.Root{}, launcher.Site{}, false
	if !r.Writable {
		want.Scratch = launcher.Scratch{} // for changes
	}
	got, err := decode(Request{Digest: "d", Image: r.Label.Image, Container: want}.message())
	if err != nil {
		return false
	}
	a, errA := json.Marshal(got.Container)
	b, errB := json.Marshal(want)
	return errA == nil && errB == nil && bytes.Equal(a, b)
}

func (r Request) message() wire.Message {
	c := r.Container
	m := wire.Message{
		{Key: "image", Value: r.Image},
		{Key: "digest", Value: r.Digest},
		{Key: "workdir", Value: c.Workdir},
		{Key: "cwd", Value: c.Job.Dir},
		{Key: "tmpdir", Value: c.Job.TmpDir},
		{Key: "job", Value: c.Job.ID},
	}
	if c.MountHome {
		m = m.Add("home", "1")
	}
	for _, mount := range c.Mounts {
		m = m.Add("mounts", mount)
	}
	for _, v := range c.Label.Env {
		m = m.Add("env", v)
	}
	return m
}

// decode takes nothing that it does not know.
func decode(m wire.Message) (Request, error) {
	for _, r := range m {
		switch r.Key {
		case "image", "digest", "workdir", "cwd", "tmpdir", "home", "mounts", "env", "job":
		default:
			return Request{}, fmt.Errorf("unknown key %q", r.Key)
		}
	}
	r := Request{Image: m.Get("image"), Digest: m.Get("digest")}
	r.Container = launcher.Request{
		Mounts: m.All("mounts"), MountHome: m.Get("home") == "1", Workdir: m.Get("workdir"),
		Job:   launcher.Job{ID: m.Get("job"), Dir: m.Get("cwd"), TmpDir: m.Get("tmpdir")},
		Label: launcher.Label{Image: m.Get("image"), Env: m.All("env")},
	}
	switch {
	case r.Image == "" || r.Digest == "":
		return r, errors.New("no image is named")
	case r.Container.Job.Dir != "" && !filepath.IsAbs(r.Container.Job.Dir):
		return r, errors.New("the folder is not an absolute path")
	case strings.HasPrefix(r.Image, "/") || strings.HasPrefix(r.Image, "."):
		return r, errors.New("an image by its path is the user's own to mount")
	}
	return r, nil
}
