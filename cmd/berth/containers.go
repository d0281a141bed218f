package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/berth-hpc/berth/cmd/internal/config"
	"github.com/berth-hpc/berth/imagecache/store"
	"github.com/berth-hpc/berth/launcher"
	"github.com/berth-hpc/berth/launcher/changes"
)

// containersCmd is about containers under a name: what berth run --name keeps,
// and jobs with --container-name on this node.
type containersCmd struct {
	List listContainersCmd `cmd:"" default:"withargs" help:"List them (the default)."`
	Rm   rmContainersCmd   `cmd:"" help:"Remove containers with all that was changed in them."`
}

// listContainersCmd lists the user's containers.
type listContainersCmd struct {
	JSON bool `name:"json" help:"Print the containers as JSON."`
}

// A listedContainer is one container as --json prints it.
type listedContainer struct {
	changes.Record
	Path  string `json:"path"`  // its folder
	Bytes int64  `json:"bytes"` // of its changes, on disk
	InUse bool   `json:"in_use"`
}

// Run prints a line for each container.
func (c *listContainersCmd) Run(s *session) error {
	list, err := s.listContainers()
	if err != nil {
		return err
	}
	if c.JSON {
		return s.printJSON(list)
	}
	t := tabwriter.NewWriter(s.stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "NAME\tIMAGE\tDIGEST\tCHANGES\tCREATED\tIN USE")
	for _, l := range list {
		used := map[bool]string{true: "yes", false: "no"}[l.InUse]
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%s\n", l.Name, printable(l.Reference), short(l.Digest), megabytes(l.Bytes),
			l.Created.Local().Format(time.DateTime), used)
	}
	return t.Flush()
}

func (s *session) listContainers() ([]listedContainer, error) {
	_, places, err := s.containers()
	if err != nil {
		return nil, err
	}
	listed := []listedContainer{}
	for _, containers := range places {
		list, err := containers.List()
		if err != nil {
			return nil, err
		}
		for _, c := range list {
			l := listedContainer{Record: c.Record, Path: c.Dir(), InUse: c.InUse()}
			if l.Bytes, err = c.Size(); err != nil {
				return nil, err
			}
			listed = append(listed, l)
		}
	}
	return listed, nil
}

// containers returns the user's own store and where containers are: in it, and
// those of jobs on this node.
func (s *session) containers() (*store.Store, []changes.Containers, error) {
	cfg, err := s.settings()
	if err != nil {
		return nil, nil, err
	}
	images, err := ownStore(cfg)
	if err != nil {
		return nil, nil, err
	}
	places := append([]changes.Containers{changes.In(images.Root())}, s.user.jobNames(cfg)...)
	return images, places, nil
}

// jobNames is where jobs of the user keep containers on this machine, those that
// outlive their job first. What has expired there is removed.
func (a account) jobNames(cfg *config.Config) []changes.Containers {
	host, _ := os.Hostname()
	host, _, _ = strings.Cut(host, ".")
	folder, known := launcher.Expand(cfg.Container.NamesDir, map[byte]string{
		'%': "%", 'u': a.name, 'U': strconv.Itoa(a.uid), 'G': strconv.Itoa(a.gid), 'h': a.home, 'H': host,
	})
	if !known {
		return nil
	}
	if changes.CheckOwn(folder) != nil {
		return nil
	}
	entries, err := os.ReadDir(folder)
	if err != nil {
		return nil
	}
	kept := changes.In(folder)
	if cfg.Container.NamesExpiry > 0 {
		_ = kept.Expire(cfg.Container.NamesExpiry)
	}
	places := []changes.Containers{kept}
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), "job-") && e.IsDir() {
			places = append(places, changes.In(filepath.Join(folder, e.Name())))
		}
	}
	return places
}

// findContainer returns the container of that name, and whether it is in the
// user's own store.
func findContainer(places []changes.Containers, name string) (container *changes.Container, own bool, err error) {
	for i, containers := range places {
		c, getErr := containers.Get(name)
		if getErr == nil {
			return c, i == 0, nil
		}
		if i == 0 || !errors.Is(getErr, changes.ErrNotFound) {
			err = getErr
		}
	}
	return nil, false, err
}

// rmContainersCmd removes containers.
type rmContainersCmd struct {
	Name []string `arg:"" name:"name" help:"Containers, as berth containers lists them."`
}

// Run removes what it can and then says what it could not.
func (c *rmContainersCmd) Run(ctx context.Context, s *session) error {
	images, places, err := s.containers()
	if err != nil {
		return err
	}
	places[0].Sweep()
	for _, name := range c.Name {
		err = errors.Join(err, s.removeContainer(ctx, images, places, name))
	}
	return err
}

func (s *session) removeContainer(ctx context.Context, images *store.Store, places []changes.Containers, name string) error {
	container, own, err := findContainer(places, name)
	if err != nil {
		return err
	}
	lock, err := container.Lock(ctx)
	if err != nil {
		return err
	}
	if err := s.takeBack(ctx, container.Dir()); err != nil {
		return errors.Join(err, lock.Release())
	}
	err = container.Remove()
	if own {
		err = errors.Join(err, images.Release(container.Digest, holder(name)))
	}
	return errors.Join(err, lock.Release())
}
