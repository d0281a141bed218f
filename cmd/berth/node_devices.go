package main

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"slices"

	"github.com/berth-hpc/berth/cmd/internal/config"
	"github.com/berth-hpc/berth/fault"
	"github.com/berth-hpc/berth/launcher/devices"
)

// nodeDevicesCmd writes the catalogue of the node's devices into the run
// folder, for all steps to come.
type nodeDevicesCmd struct{}

// Run takes what root alone could have written. What it does not take,
// `berth doctor` tells.
func (*nodeDevicesCmd) Run(s *session) error {
	cfg, err := config.Load(config.Source{Dir: s.configDir})
	if err != nil {
		return err
	}
	path := devices.CatalogueFile(cfg.Node.RunDir, devices.Fingerprint(slices.Concat(cfg.Devices.SpecDirs, cfg.Hooks.Dirs))) // before they are read
	catalogue := loadCatalogue(cfg, 0)
	return fault.Wrap("write", path, fault.Site, "look at the rights and the space of that folder", replaceCatalogue(path, catalogue))
}

// replaceCatalogue leaves one file in its folder, complete whenever it is there.
func replaceCatalogue(path string, c *devices.Catalogue) error {
	dir := filepath.Dir(path)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	old, err := filepath.Glob(filepath.Join(dir, "*.json"))
	if err != nil {
		return err
	}
	f, err := os.CreateTemp(dir, ".new-")
	if err != nil {
		return err
	}
	err = errors.Join(json.NewEncoder(f).Encode(c), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	for _, o := range old {
		if o != path {
			err = errors.Join(err, os.Remove(o))
		}
	}
	return err
}
