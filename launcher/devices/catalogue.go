// Package devices decides which of a machine's devices a container gets, and
// what comes with them: files, variables and hooks, as the specs of the
// Container Device Interface say (https://tags.cncf.io/container-device-interface).
//
//	cdi/          spec files            -> Catalogue   (package cdi, with the YAML library)
//	choose.go     what is asked, the scheduler's variables, the image -> names
//	edits.go      names, Catalogue      -> Edits
//
// What it decides is a convenience, not a guard: what a user may open is
// decided by the files' permissions and by the scheduler's device cgroup.
package devices

import (
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/berth-hpc/berth/launcher/hooks"
	specs "tags.cncf.io/container-device-interface/specs-go"
)

// A Catalogue is what the spec files of a machine name, and its hooks. It travels as JSON
// from who reads those files to who builds containers.
type Catalogue struct {
	// Specs are in the order of their folders: of two with the same device the
	// later one's counts.
	Specs []Spec `json:"specs,omitempty"`
	// Aliases are further names of devices, such as a GPU's UUID.
	Aliases map[string]string `json:"aliases,omitempty"`
	// Hooks are the admin's, for containers with and without devices.
	Hooks []hooks.Hook `json:"hooks,omitempty"`
}

// A Spec is one file.
type Spec struct {
	Path string `json:"path"`
	specs.Spec
}

// maxCatalogue bounds a catalogue in bytes.
const maxCatalogue = 16 << 20

// Read decodes a catalogue.
func Read(r io.Reader) (*Catalogue, error) {
	c := new(Catalogue)
	if err := json.NewDecoder(io.LimitReader(r, maxCatalogue)).Decode(c); err != nil {
		return nil, fmt.Errorf("read the catalogue of devices: %w", err)
	}
	return c, nil
}

// Empty says whether c names nothing.
func (c *Catalogue) Empty() bool { return len(c.Specs) == 0 && len(c.Hooks) == 0 }

// Names returns every device, as vendor/class=name, sorted.
func (c *Catalogue) Names() []string {
	var names []string
	for i := range c.Specs {
		for _, d := range c.Specs[i].Devices {
			names = append(names, c.Specs[i].Kind+"="+d.Name)
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// kind returns the names of one kind's devices.
func (c *Catalogue) kind(kind string) []string {
	var names []string
	for _, n := range c.Names() {
		if strings.HasPrefix(n, kind+"=") {
			names = append(names, n)
		}
	}
	return names
}

// find returns a device and the spec that it is in.
func (c *Catalogue) find(name string) (*Spec, *specs.Device) {
	kind, device, _ := strings.Cut(name, "=")
	for i := range slices.Backward(c.Specs) {
		s := &c.Specs[i]
		if s.Kind != kind {
			continue
		}
		for j := range s.Devices {
			if s.Devices[j].Name == device {
				return s, &s.Devices[j]
			}
		}
	}
	return nil, nil
}

// SpecOf returns the file that counts for a device.
func (c *Catalogue) SpecOf(name string) string {
	if s, _ := c.find(name); s != nil {
		return s.Path
	}
	return ""
}

// FilesOf returns the machine's device files that a device has.
func (c *Catalogue) FilesOf(name string) []string {
	var files []string
	if _, d := c.find(name); d != nil {
		for _, n := range d.ContainerEdits.DeviceNodes {
			files = append(files, hostPath(n))
		}
	}
	return files
}
