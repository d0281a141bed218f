package main

import (
	"context"
	"os"

	"github.com/berth-hpc/berth/fault"
	"github.com/berth-hpc/berth/imagecache"
	"github.com/berth-hpc/berth/imagecache/credentials"
	"github.com/berth-hpc/berth/prolog"
	"golang.org/x/sys/unix"
)

// credentialCmd answers which login the user has for one image, with helpers
// and variables. It runs in a task's own session, where the user's home and
// tickets are, and tells a process of ours.
type credentialCmd struct {
	imageRef
}

// Run answers on descriptor 3, and there alone.
func (c *credentialCmd) Run(ctx context.Context, s *session) error {
	if err := inherited(unix.S_IFIFO, unix.S_IFSOCK); err != nil {
		return err
	}
	unix.CloseOnExec(3) // helper programs have no business there
	if err := guardSecrets(); err != nil {
		return err
	}
	login, err := c.find(ctx, s)
	return credentials.WriteAnswer(os.NewFile(3, "answer"), login, err)
}

func (c *credentialCmd) find(ctx context.Context, s *session) (credentials.Login, error) {
	cfg, err := s.settings()
	if err != nil {
		return credentials.Login{}, err
	}
	ref, _, err := c.parse()
	if err != nil || ref.Kind() != imagecache.Registry {
		return credentials.Login{}, err
	}
	return s.keychain(cfg).Login(ctx, credentials.Target{
		Registry: ref.Host(), Repository: ref.Repository(), User: ref.User(),
	})
}

// nodeCredentialsCmd looks for a user's login in the user's files.
type nodeCredentialsCmd struct{}

// Run answers on descriptor 3.
func (*nodeCredentialsCmd) Run(ctx context.Context, s *session) error {
	if err := inherited(unix.S_IFIFO); err != nil {
		return err
	}
	return prolog.AnswerLogin(ctx, s.stdin, os.NewFile(3, "answer"))
}

// hideMemory is credentials.HideMemory for commands.
func hideMemory() error {
	return fault.Wrap("guard", "this process", fault.Site, "", credentials.HideMemory())
}

// guardSecrets is credentials.Guard for commands.
func guardSecrets() error {
	return fault.Wrap("guard", "this process", fault.Site, "", credentials.Guard())
}
