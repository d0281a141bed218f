package credentials

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strconv"

	"github.com/berth-hpc/berth/fault"
)

// Places says where files with logins are. Paths are absolute; "" stands for
// a place that there is not.
type Places struct {
	AuthFile   string // $REGISTRY_AUTH_FILE, in place of the next two
	RuntimeDir string // $XDG_RUNTIME_DIR
	ConfigHome string // $XDG_CONFIG_HOME, or ~/.config
	DockerDir  string // $DOCKER_CONFIG, or ~/.docker
	EnrootDir  string // $ENROOT_CONFIG_PATH, or ~/.config/enroot
}

// HomePlaces returns the places of a user about whom nothing but the home
// folder and the uid is known. Without a home folder there are none below it.
func HomePlaces(home string, uid int) Places {
	p := Places{RuntimeDir: filepath.Join("/run/user", strconv.Itoa(uid))}
	if filepath.IsAbs(home) {
		p.ConfigHome = filepath.Join(home, ".config")
		p.DockerDir = filepath.Join(home, ".docker")
		p.EnrootDir = filepath.Join(p.ConfigHome, "enroot")
	}
	return p
}

// files returns the sources at these places, in order.
func (p Places) files() []source {
	var all []source
	for _, path := range p.authFiles() {
		all = append(all, authFile{path})
	}
	if p.EnrootDir != "" {
		all = append(all, netrcFile{filepath.Join(p.EnrootDir, ".credentials")})
	}
	return all
}

func (p Places) authFiles() []string {
	var paths []string
	add := func(dir, name string) {
		if dir != "" {
			paths = append(paths, filepath.Join(dir, name))
		}
	}
	if p.AuthFile != "" {
		paths = append(paths, p.AuthFile)
	} else {
		add(p.RuntimeDir, containersAuth)
		add(p.ConfigHome, containersAuth)
	}
	add(p.DockerDir, "config.json")
	return paths
}

const containersAuth = "containers/auth.json"

// A Variable is an environment variable that holds logins.
type Variable struct {
	Name string
	Text Secret
}

// A Keychain looks for logins in all places where a user may have some. It
// keeps nothing between two calls, and any number of goroutines may use it.
type Keychain struct {
	Variables []Variable
	Places    Places
	// Helpers starts docker-credential-* programs; nil starts none.
	Helpers *Helpers
	// Expand looks up a variable that Enroot's file refers to; nil for none.
	Expand func(name string) (string, bool)
	// Warn gets a line about a source that was passed over or that others
	// can read; nil drops it.
	Warn func(text string)
}

// A source is one place where logins are. look returns the zero Login where
// the source has none for t.
type source interface {
	look(ctx context.Context, k *Keychain, t Target) (Login, error)
	list(k *Keychain) ([]Entry, error)
}

func (k *Keychain) sources() []source {
	var all []source
	for _, v := range k.Variables {
		all = append(all, v)
	}
	return append(all, k.Places.files()...)
}

// Login returns the user's login for t, the zero Login where there is none. It
// fails when there is none and a source could not be read, and when t names a
// user who has none.
func (k *Keychain) Login(ctx context.Context, t Target) (Login, error) {
	var problems []error
	for _, src := range k.sources() {
		login, err := src.look(ctx, k, t)
		if err != nil {
			problems = append(problems, err)
		}
		if !login.IsZero() {
			k.warnAll(problems)
			return login, nil
		}
		if ctx.Err() != nil {
			break
		}
	}
	return Login{}, t.missing(errors.Join(problems...))
}

// missing says why there is no login, where that is a failure.
func (t Target) missing(problems error) error {
	switch {
	case problems != nil:
		return problems
	case t.User == "":
		return nil
	}
	return &fault.Error{
		Op: "look for the login of", Arg: t.User, Blame: fault.User,
		Err:    fmt.Errorf("you have none of that name for %s", t.Registry),
		Remedy: fmt.Sprintf("berth login --username %s %s", t.User, t.Registry),
	}
}

func (k *Keychain) warnAll(problems []error) {
	for _, err := range problems {
		k.warn("%v", err)
	}
}

func (k *Keychain) warn(format string, a ...any) {
	if k.Warn != nil {
		k.Warn(fmt.Sprintf(format, a...))
	}
}

// An Entry is a login as `berth login --list` shows it.
type Entry struct {
	Registry string `json:"registry"` // HOST, or HOST/NAMESPACE
	User     string `json:"user,omitempty"`
	Kind     string `json:"kind"` // password, identity token, token, helper NAME
	Source   string `json:"source"`
}

// List returns all logins, in the order in which they count. What helpers hold
// is listed by the helper's name alone.
func (k *Keychain) List() []Entry {
	var all []Entry
	for _, src := range k.sources() {
		entries, err := src.list(k)
		if err != nil {
			k.warn("%v", err)
		}
		all = append(all, entries...)
	}
	return all
}

// problem is a source that can't be used. Err says nothing of its contents.
func problem(source, remedy string, err error) error {
	return fault.Wrap("read the logins in", source, fault.User, remedy, err)
}
