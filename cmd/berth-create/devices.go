package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"slices"
	"strings"
	"time"

	"github.com/berth-hpc/berth/fault"
	"github.com/berth-hpc/berth/launcher/devices"
	"github.com/berth-hpc/berth/prolog/jobstate"
)

// catalogueLimit bounds how long a node's specs may be read.
const catalogueLimit = 20 * time.Second

// Catalogue opens the node's catalogue of devices. Reading YAML takes longer
// than making a container, so `berth node devices` does it, once for each
// state of the specs, and leaves what it read in the run folder.
func (n *node) Catalogue(ctx context.Context) (*os.File, error) {
	print := devices.Fingerprint(slices.Concat(n.cfg.Devices.SpecDirs, n.cfg.Hooks.Dirs))
	if print == "" {
		return nil, nil
	}
	path := devices.CatalogueFile(n.cfg.Node.RunDir, print)
	f, err := os.Open(path)
	if !errors.Is(err, fs.ErrNotExist) {
		return f, err
	}
	ctx, cancel := context.WithTimeout(ctx, catalogueLimit)
	defer cancel()
	cmd := exec.CommandContext(ctx, n.berth, "node", "devices")
	cmd.Env, cmd.Dir = jobstate.Environment(), "/"
	if out, err := cmd.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("berth node devices: %w: %s", err, fault.Clean(strings.TrimSpace(string(out))))
	}
	return os.Open(path)
}
