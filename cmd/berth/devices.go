package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/berth-hpc/berth/cmd/internal/config"
	"github.com/berth-hpc/berth/launcher"
	"github.com/berth-hpc/berth/launcher/devices"
	"github.com/berth-hpc/berth/launcher/devices/cdi"
	"github.com/berth-hpc/berth/launcher/hooks"
	"github.com/berth-hpc/berth/launcher/trust"
)

// devicesCmd lists what --device may name.
type devicesCmd struct {
	JSON bool `name:"json" help:"Print the list as JSON."`
}

// A deviceLine is one device of the list.
type deviceLine struct {
	Name  string   `json:"name"`
	Spec  string   `json:"spec"`
	Files []string `json:"files,omitempty"`
}

// Run prints one line per device, and what is wrong with specs to stderr.
func (c *devicesCmd) Run(s *session) error {
	cfg, err := s.settings()
	if err != nil {
		return err
	}
	catalogue, problems := cdi.Load(cfg.Devices.SpecDirs, trust.Owner(s.user.uid))
	lines := listDevices(catalogue)
	if c.JSON {
		return s.printJSON(struct {
			Devices  []deviceLine  `json:"devices"`
			Problems []cdi.Problem `json:"problems"`
		}{lines, problems})
	}
	for _, p := range problems {
		fmt.Fprintf(s.stderr, "berth: warning: %s is not used: %s\n", printable(p.Path), printable(p.Err))
	}
	for _, l := range lines {
		if _, err := fmt.Fprintf(s.stdout, "%s\t%s\t%s\n", printable(l.Name), printable(strings.Join(l.Files, ",")), printable(l.Spec)); err != nil {
			return err
		}
	}
	return nil
}

func listDevices(c *devices.Catalogue) []deviceLine {
	lines := []deviceLine{}
	for _, name := range c.Names() {
		lines = append(lines, deviceLine{name, c.SpecOf(name), c.FilesOf(name)})
	}
	return lines
}

// devices is what the command line, the settings and the variables say.
func (c *runCmd) devices(s *session, cfg *config.Config) devices.Wish {
	w := devices.Wish{
		Asked: c.Device, Always: cfg.Devices.Always, Scheduler: cfg.Devices.Scheduler,
		Minimal: cfg.Container.Dev == config.MinimalDev,
		Job:     s.env("SLURM_JOB_ID") != "" || s.env("PBS_JOBID") != "",
	}
	w.TakeVariables(c.given.over(s.withoutLogins()))
	return w
}

// launcherVariables are those by which a launcher tells a task its place.
func (s *session) launcherVariables() []string {
	var out []string
	for _, name := range []string{"SLURM_STEP_NUM_TASKS", "SLURM_NODEID", "SLURM_PROCID", "PMI_FD", "PMIX_RANK", "PMIX_NAMESPACE"} {
		if v, _ := s.lookupEnv(name); v != "" { // not env: a container that stands ready is for all tasks
			out = append(out, name+"="+v)
		}
	}
	return out
}

// loadCatalogue reads what the machine has to give. Doctor tells the problems.
func loadCatalogue(cfg *config.Config, owner trust.Owner) *devices.Catalogue {
	c, _ := cdi.Load(cfg.Devices.SpecDirs, owner)
	c.Hooks, _ = hooks.Load(cfg.Hooks.Dirs, owner)
	return c
}

// machineCatalogue is what a container made by hand may be given.
func machineCatalogue(s *session, cfg *config.Config) *devices.Catalogue {
	return loadCatalogue(cfg, trust.Owner(s.user.uid))
}

// useCatalogue gives the container the machine's devices and hooks. The user's
// own count too, since nobody else is in this container.
func (s *session) useCatalogue(cfg *config.Config, creation *launcher.Creation) (err error) {
	machine := machineCatalogue(s, cfg)
	if !machine.Empty() {
		creation.Catalogue, err = catalogueFile(machine)
	}
	return err
}

// catalogueFile is a file without a name.
func catalogueFile(c *devices.Catalogue) (*os.File, error) {
	f, err := os.CreateTemp("", "berth-devices-")
	if err != nil {
		return nil, err
	}
	err = errors.Join(os.Remove(f.Name()), json.NewEncoder(f).Encode(c))
	if _, rewind := f.Seek(0, io.SeekStart); err != nil || rewind != nil {
		return nil, errors.Join(err, rewind, f.Close())
	}
	return f, nil
}

// printNotes tells what the user of a container should know.
func (s *session) printNotes(notes []string) {
	for _, n := range notes {
		fmt.Fprintln(s.stderr, "berth: "+printable(n))
	}
}
