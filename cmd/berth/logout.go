package main

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/berth-hpc/berth/fault"
	"github.com/berth-hpc/berth/imagecache/credentials"
)

// logoutCmd forgets logins that `berth login` stored.
type logoutCmd struct {
	Registry string `arg:"" optional:"" help:"HOST or HOST/NAMESPACE; docker.io without one."`
	All      bool   `help:"Forget all logins in the file of berth login."`
}

// Run says from where a login was removed, and where others are left.
func (c *logoutCmd) Run(ctx context.Context, s *session) error {
	if err := guardSecrets(); err != nil {
		return err
	}
	cfg, err := s.settings()
	if err != nil {
		return err
	}
	if c.All {
		return c.all(ctx, s, s.keychain(cfg))
	}
	key, host, err := registryKey(c.Registry)
	if err != nil {
		return err
	}
	k := s.keychain(cfg)
	where, err := k.Erase(ctx, key)
	if err != nil {
		return err
	}
	left := remaining(k.List(), key)
	if len(where) == 0 {
		return notLoggedIn(key, left)
	}
	for _, source := range left {
		s.log.Warnf("%s still has a login for %s; it is not berth login's", source, host)
	}
	_, err = fmt.Fprintf(s.stdout, "logged out of %s; removed from %s\n", key, strings.Join(where, " and "))
	return err
}

func (c *logoutCmd) all(ctx context.Context, s *session, k *credentials.Keychain) error {
	if c.Registry != "" {
		return &fault.Error{
			Op: "read the command line", Blame: fault.User, Err: errors.New("--all is for all registries"),
			Remedy: "name one, or say --all",
		}
	}
	path, count, err := k.EraseAll(ctx)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(s.stdout, "%d logins removed from %s\n", count, path)
	return err
}

// remaining returns where logins for key are, each place once.
func remaining(all []credentials.Entry, key string) []string {
	var places []string
	seen := map[string]bool{}
	for _, e := range all {
		if e.Registry == key && !strings.HasPrefix(e.Kind, "helper ") && !seen[e.Source] {
			places = append(places, e.Source)
			seen[e.Source] = true
		}
	}
	return places
}

func notLoggedIn(key string, left []string) error {
	err := &fault.Error{
		Op: "log out of", Arg: key, Blame: fault.User, Err: errors.New("berth login keeps no login for it"),
		Remedy: "berth login --list shows all",
	}
	if len(left) > 0 {
		err.Remedy = "there is one in " + strings.Join(left, " and in ") + "; remove it there"
	}
	return err
}
