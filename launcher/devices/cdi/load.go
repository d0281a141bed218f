// Package cdi reads the spec files of the Container Device Interface. It is
// apart from package devices because of the YAML library, which the programs
// that build containers do without.
package cdi

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/berth-hpc/berth/launcher/devices"
	"github.com/berth-hpc/berth/launcher/trust"
	"tags.cncf.io/container-device-interface/pkg/cdi"
	specs "tags.cncf.io/container-device-interface/specs-go"
)

// A Problem is a file or folder that is not used, and why.
type Problem struct {
	Path string `json:"path"`
	Err  string `json:"error"`
}

// Load reads the specs in dirs, of which later ones count more. Files that
// owner alone could not vouch for are problems, not errors: one bad file must
// not take the devices of others away. A missing folder is none.
func Load(dirs []string, owner trust.Owner) (*devices.Catalogue, []Problem) {
	c, problems := new(devices.Catalogue), []Problem(nil)
	for priority, dir := range dirs {
		paths, err := specFiles(dir, owner)
		if err != nil {
			problems = append(problems, Problem{dir, err.Error()})
		}
		seen := map[string]string{}
		for _, p := range paths {
			spec, err := read(p, priority, owner)
			if err == nil {
				err = conflict(seen, spec)
			}
			if err != nil {
				problems = append(problems, Problem{p, err.Error()})
				continue
			}
			c.Specs = append(c.Specs, *spec)
		}
	}
	c.Aliases = uuids(c, nvidiaProc)
	return c, problems
}

// specFiles returns the spec files of a folder, sorted by name.
func specFiles(dir string, owner trust.Owner) ([]string, error) {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err == nil {
		err = owner.Check(dir)
	}
	if err != nil {
		return nil, err
	}
	var paths []string
	for _, e := range entries {
		if ext := filepath.Ext(e.Name()); ext == ".json" || ext == ".yaml" {
			paths = append(paths, filepath.Join(dir, e.Name()))
		}
	}
	return paths, nil
}

func read(path string, priority int, owner trust.Owner) (*devices.Spec, error) {
	if err := owner.Check(path); err != nil {
		return nil, err
	}
	if st, err := os.Stat(path); err == nil && st.Mode()&0o004 == 0 && owner == 0 {
		return nil, errors.New("users may not read it, and would be shown it") // Catalogues travel to them.
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	raw, err := cdi.ParseSpec(text)
	if err == nil {
		err = checkNulls(raw)
	}
	if err != nil {
		return nil, oneLine(err)
	}
	s, err := cdi.ReadSpec(path, priority)
	if err != nil {
		return nil, oneLine(err)
	}
	if err := checkHooks(s.ContainerEdits.Hooks, owner); err != nil {
		return nil, err
	}
	for _, d := range s.Devices {
		if err := checkHooks(d.ContainerEdits.Hooks, owner); err != nil {
			return nil, err
		}
	}
	return &devices.Spec{Path: path, Spec: *s.Spec}, nil
}

// checkNulls refuses lists with nothing in a place, at which the library, which
// checks all else, panics.
func checkNulls(s *specs.Spec) error {
	if s == nil {
		return errors.New("it is empty")
	}
	edits := []*specs.ContainerEdits{&s.ContainerEdits}
	for i := range s.Devices {
		edits = append(edits, &s.Devices[i].ContainerEdits)
	}
	for _, e := range edits {
		if slices.Contains(e.DeviceNodes, nil) || slices.Contains(e.NetDevices, nil) || slices.Contains(e.Hooks, nil) || slices.Contains(e.Mounts, nil) {
			return errors.New("a list of containerEdits has a null")
		}
	}
	return nil
}

// checkHooks looks at the programs that would be run. Those whose work Berth
// does itself need not even exist.
func checkHooks(hooks []*specs.Hook, owner trust.Owner) error {
	for _, h := range hooks {
		if devices.Known(h) {
			continue
		}
		if err := owner.CheckProgram(h.Path); err != nil {
			return fmt.Errorf("hook: %w", err)
		}
	}
	return nil
}

// conflict refuses a device that another file of the same folder has too.
func conflict(seen map[string]string, s *devices.Spec) error {
	for _, d := range s.Devices {
		name := s.Kind + "=" + d.Name
		if other, ok := seen[name]; ok {
			return fmt.Errorf("%s has %s too", other, name)
		}
	}
	for _, d := range s.Devices {
		seen[s.Kind+"="+d.Name] = s.Path
	}
	return nil
}

// oneLine puts a YAML error into one line.
func oneLine(err error) error {
	return errors.New(strings.Join(strings.Fields(err.Error()), " "))
}
