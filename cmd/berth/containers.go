package main

import (
	"context"
	"errors"
	"fmt"
	"text/tabwriter"
	"time"

	"github.com/berth-hpc/berth/imagecache/store"
	"github.com/berth-hpc/berth/launcher/changes"
)

// containersCmd is about containers under a name: what berth run --name keeps.
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
	_, containers, err := s.containers()
	if err != nil {
		return nil, err
	}
	list, err := containers.List()
	if err != nil {
		return nil, err
	}
	listed := []listedContainer{}
	for _, c := range list {
		l := listedContainer{Record: c.Record, Path: c.Dir(), InUse: c.InUse()}
		if l.Bytes, err = c.Size(); err != nil {
			return nil, err
		}
		listed = append(listed, l)
	}
	return listed, nil
}

// containers returns the user's own store and the containers in it.
func (s *session) containers() (*store.Store, changes.Containers, error) {
	cfg, err := s.settings()
	if err != nil {
		return nil, changes.Containers{}, err
	}
	images, err := ownStore(cfg)
	if err != nil {
		return nil, changes.Containers{}, err
	}
	return images, changes.In(images.Root()), nil
}

// rmContainersCmd removes containers.
type rmContainersCmd struct {
	Name []string `arg:"" name:"name" help:"Containers, as berth containers lists them."`
}

// Run removes what it can and then says what it could not.
func (c *rmContainersCmd) Run(ctx context.Context, s *session) error {
	images, containers, err := s.containers()
	if err != nil {
		return err
	}
	containers.Sweep()
	for _, name := range c.Name {
		err = errors.Join(err, s.removeContainer(ctx, images, containers, name))
	}
	return err
}

func (s *session) removeContainer(ctx context.Context, images *store.Store, containers changes.Containers, name string) error {
	container, err := containers.Get(name)
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
	return errors.Join(container.Remove(), images.Release(container.Digest, holder(name)), lock.Release())
}
