package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/berth-hpc/berth/cmd/internal/config"
	"github.com/berth-hpc/berth/fault"
	"github.com/berth-hpc/berth/imagecache"
	"github.com/berth-hpc/berth/imagecache/credentials"
)

// loginCmd stores a login to a registry, where podman keeps its own.
type loginCmd struct {
	Registry      string `arg:"" optional:"" help:"HOST, or HOST/NAMESPACE for a login that holds for a part of it; docker.io without one."`
	Username      string `short:"u" placeholder:"NAME" help:"Your name at the registry; asked for without it."`
	PasswordStdin bool   `help:"Read the password, or an access token, from standard input."`
	List          bool   `short:"l" help:"List the logins that Berth finds, without their secrets."`
	JSON          bool   `name:"json" help:"Print the list as JSON."`
}

// checkTime bounds how long a registry may take to check a login.
const checkTime = time.Minute

// maxPassword is the length of the longest password that is taken, in bytes.
const maxPassword = 64 << 10

// Run asks for what is not given, has the registry check it, and stores it.
func (c *loginCmd) Run(ctx context.Context, s *session) error {
	if err := guardSecrets(); err != nil {
		return err
	}
	cfg, err := s.settings()
	if err != nil {
		return err
	}
	if c.List || c.JSON {
		return c.list(s, s.keychain(cfg).List())
	}
	key, host, err := registryKey(c.Registry)
	if err != nil {
		return err
	}
	login, err := c.ask(ctx, s, host)
	if err != nil {
		return err
	}
	if err := c.check(ctx, s, cfg, host, login); err != nil {
		return err
	}
	return c.store(ctx, s, cfg, key, login)
}

// registryKey reads what a user calls a registry.
func registryKey(registry string) (key, host string, err error) {
	if registry == "" {
		registry = "docker.io"
	}
	key = credentials.Key(registry)
	host, _, _ = strings.Cut(key, "/")
	if host == "" || strings.ContainsAny(key, " @#\t\n") || strings.Contains(key, "://") {
		return "", "", &fault.Error{
			Op: "read the registry's name", Arg: fmt.Sprintf("%q", registry), Blame: fault.User,
			Err: errors.New("it is not HOST or HOST/NAMESPACE"), Remedy: "for example: berth login quay.io",
		}
	}
	return key, host, nil
}

// check has the registry look at a login before it is stored.
func (c *loginCmd) check(ctx context.Context, s *session, cfg *config.Config, host string, login credentials.Login) error {
	ctx, cancel := context.WithTimeout(ctx, checkTime)
	defer cancel()
	checked, err := imagecache.CheckLogin(ctx, host, login, anonymous(cfg))
	if err == nil && !checked {
		s.log.Warnf("%s lets in everybody, so the password could not be checked", host)
	}
	return err
}

func (c *loginCmd) store(ctx context.Context, s *session, cfg *config.Config, key string, login credentials.Login) error {
	k := s.keychain(cfg)
	where, err := k.Store(ctx, key, login)
	if err != nil {
		return err
	}
	host, repository, _ := strings.Cut(key, "/")
	found, err := k.Login(ctx, credentials.Target{Registry: host, Repository: repository})
	if err == nil && !strings.HasPrefix(found.Source(), where) {
		s.log.Warnf("another login for %s comes first: %v", key, found)
	}
	_, err = fmt.Fprintf(s.stdout, "logged in to %s as %s; kept in %s\n", key, printable(login.Name()), where)
	return err
}

// ask gets the name and the password.
func (c *loginCmd) ask(ctx context.Context, s *session, host string) (credentials.Login, error) {
	name, password, err := c.answers(ctx, s, host)
	if err == nil && (name == "" || strings.Contains(name, ":")) {
		err = errors.New("a user name is not empty and has no colon")
	}
	if err == nil && password == "" {
		err = errors.New("the password is empty")
	}
	return credentials.NewLogin(name, credentials.NewSecret(password), "what you typed"),
		fault.Wrap("log in to", host, fault.User, "in scripts: berth login --username NAME --password-stdin "+host+" <FILE", err)
}

func (c *loginCmd) answers(ctx context.Context, s *session, host string) (name, password string, err error) {
	name = c.Username
	if c.PasswordStdin {
		if name == "" {
			return "", "", errors.New("--password-stdin needs --username")
		}
		password, err = readPassword(s.stdin)
		return name, password, err
	}
	t, err := openTerminal()
	if err != nil {
		return "", "", err
	}
	defer t.Close()
	if name == "" {
		if name, err = t.ask(ctx, fmt.Sprintf("User name at %s: ", printable(host))); err != nil {
			return "", "", err
		}
	}
	password, err = t.askHidden(ctx, "Password or access token: ")
	return name, password, err
}

// readPassword reads all of in, but for the end of its last line.
func readPassword(in io.Reader) (string, error) {
	data, err := io.ReadAll(io.LimitReader(in, maxPassword+1))
	if err == nil && len(data) > maxPassword {
		err = fmt.Errorf("the password is longer than %d bytes", maxPassword)
	}
	return strings.TrimSuffix(strings.TrimSuffix(string(data), "\n"), "\r"), err
}

func (c *loginCmd) list(s *session, all []credentials.Entry) error {
	if c.JSON {
		if all == nil {
			all = []credentials.Entry{}
		}
		return s.printJSON(all)
	}
	t := tabwriter.NewWriter(s.stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "REGISTRY\tUSER\tKIND\tFROM")
	for _, e := range all {
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\n", printable(e.Registry), orDash(printable(e.User)), printable(e.Kind), printable(e.Source))
	}
	return t.Flush()
}
