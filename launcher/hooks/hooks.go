// Package hooks reads the OCI hooks of a folder of the admin's, in the form
// that podman and CRI-O know (oci-hooks(5), schema 1.0.0), decides which ones
// a container wants, and runs one.
//
//	hooks.go       hooks.d/*.json  -> hooks, checked
//	match.go       hook, container -> whether it runs
//	run_linux.go   hook            -> its end, in time
//
// Hooks run as the user, never as root, in the namespaces that the runtime
// specification says, as far as there are such: see docs/containers.md.
package hooks

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/berth-hpc/berth/launcher/trust"
)

// A Hook is one file.
type Hook struct {
	Name   string   `json:"name"` // the file's, without .json
	Path   string   `json:"path"`
	Args   []string `json:"args,omitempty"` // with the program's name
	Env    []string `json:"env,omitempty"`
	Stages []string `json:"stages"`
	When   When     `json:"when"`
	// Timeout in seconds; 0 is the site's.
	Timeout int `json:"timeout,omitempty"`
}

// MaxTimeout is the longest that a hook may ask for, in seconds: a day.
const MaxTimeout = 24 * 60 * 60

// A Problem is a file or folder that is not used, and why.
type Problem struct {
	Path string `json:"path"`
	Err  string `json:"error"`
}

// A file is one as it lies in the folder.
type file struct {
	Version string `json:"version"`
	Hook    struct {
		Path    string   `json:"path"`
		Args    []string `json:"args"`
		Env     []string `json:"env"`
		Timeout *int     `json:"timeout"`
	} `json:"hook"`
	When   *When    `json:"when"`
	Stages []string `json:"stages"`
}

// Stages that exist; poststop is not run, because a container ends with its
// last task and nobody of Berth is there.
var stages = []string{"prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"}

// Load reads the hooks of dirs, of which later ones count more: a file hides
// one of the same name in a folder before. Hooks are in the order of their
// names. A file that owner alone could not vouch for, or whose program they
// could not, is a problem; a missing folder is none.
func Load(dirs []string, owner trust.Owner) ([]Hook, []Problem) {
	paths, problems := map[string]string{}, []Problem(nil)
	for _, dir := range dirs {
		entries, err := os.ReadDir(dir)
		if err == nil {
			err = owner.Check(dir)
		}
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			problems = append(problems, Problem{dir, err.Error()})
			continue
		}
		for _, e := range entries {
			if filepath.Ext(e.Name()) == ".json" {
				paths[e.Name()] = filepath.Join(dir, e.Name())
			}
		}
	}
	var found []Hook
	for _, name := range sortedKeys(paths) {
		h, err := read(paths[name], owner)
		if err != nil {
			problems = append(problems, Problem{paths[name], err.Error()})
			continue
		}
		found = append(found, *h)
	}
	return found, problems
}

func sortedKeys(m map[string]string) []string {
	var keys []string
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

func read(path string, owner trust.Owner) (*Hook, error) {
	if err := owner.Check(path); err != nil {
		return nil, err
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	h, err := Parse(text)
	if err != nil {
		return nil, err
	}
	h.Name = strings.TrimSuffix(filepath.Base(path), ".json")
	return h, owner.CheckProgram(h.Path)
}

// Parse reads a file's text. Unknown keys are left alone, as the format wants
// it; unknown stages and patterns that are none are errors.
func Parse(text []byte) (*Hook, error) {
	var f file
	if err := json.Unmarshal(text, &f); err != nil {
		return nil, err
	}
	switch {
	case f.Version != "1.0.0":
		return nil, fmt.Errorf("version %q is not 1.0.0", f.Version)
	case !filepath.IsAbs(f.Hook.Path):
		return nil, fmt.Errorf("hook.path %q is no absolute path", f.Hook.Path)
	case f.When == nil:
		return nil, errors.New("when is missing")
	case len(f.Stages) == 0:
		return nil, errors.New("stages is missing")
	}
	for _, s := range f.Stages {
		if !slices.Contains(stages, s) {
			return nil, fmt.Errorf("there is no stage %q", s)
		}
	}
	if err := f.When.check(); err != nil {
		return nil, err
	}
	h := &Hook{Path: f.Hook.Path, Args: f.Hook.Args, Env: f.Hook.Env, Stages: f.Stages, When: *f.When}
	if t := f.Hook.Timeout; t != nil {
		if *t <= 0 || *t > MaxTimeout {
			return nil, fmt.Errorf("a timeout of %d seconds", *t)
		}
		h.Timeout = *t
	}
	return h, nil
}

func (w *When) check() error {
	patterns := slices.Clone(w.Commands)
	for k, v := range w.Annotations {
		patterns = append(patterns, k, v)
	}
	for _, p := range patterns {
		if _, err := regexp.Compile(p); err != nil {
			return fmt.Errorf("when: %w", err)
		}
	}
	return nil
}
