package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/berth-hpc/berth/cmd/internal/config"
	"github.com/berth-hpc/berth/cmd/internal/doctor"
	"github.com/berth-hpc/berth/fault"
)

// doctorCmd says what keeps Berth from working here.
type doctorCmd struct {
	JSON      bool   `name:"json" help:"Print the findings as JSON."`
	SlurmConf string `placeholder:"FILE" help:"Slurm's configuration, when it is in no usual place."`
	Part      string `hidden:"" help:"Run some checks in this process. Only doctor starts it."`
}

// Run prints one line per finding and fails when one of them is a failure.
func (c *doctorCmd) Run(ctx context.Context, s *session) error {
	if c.Part != "" {
		return c.part(ctx, s)
	}
	n, err := c.node(s)
	if err != nil {
		return err
	}
	found := doctor.Examine(ctx, n)
	if err := c.print(s, found); err != nil {
		return err
	}
	return verdict(found)
}

// part answers the process that started this one.
func (c *doctorCmd) part(ctx context.Context, s *session) error {
	if c.Part == string(doctor.Wait) {
		_, err := io.Copy(io.Discard, s.stdin)
		return err
	}
	n, err := doctor.ReadNode(s.stdin)
	if err != nil {
		return fault.Wrap("start", "", fault.User, "this option is Berth's own; run: berth doctor", err)
	}
	found := doctor.RunPart(ctx, n, doctor.Part(c.Part))
	return json.NewEncoder(s.stdout).Encode(found)
}

// node describes this machine by the settings, and by the built-in ones where
// those can't be read.
func (c *doctorCmd) node(s *session) (*doctor.Node, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	n := &doctor.Node{Command: []string{self}, Root: s.user.uid == 0, SlurmConf: c.slurmConf(s)}
	if n.Libexec = s.env("BERTH_LIBEXEC"); n.Libexec == "" || n.Root {
		n.Libexec = filepath.Join(filepath.Dir(filepath.Dir(self)), "libexec", "berth")
	}
	cfg, err := s.settings()
	if err != nil {
		n.ConfigError, n.ConfigRemedy = printable(err.Error()), fault.Remedy(err)
		if cfg, err = config.Load(config.Source{Dir: "/nonexistent", Home: s.home()}); err != nil {
			return nil, err
		}
	}
	n.StoreDir, n.UserDir, n.RunDir = cfg.Store.Dir, cfg.Store.UserDir, cfg.Node.RunDir
	n.MountSocket = cfg.Node.MountSocket
	n.Account, n.PrologWait, n.IDMap = cfg.Node.Account, cfg.Node.PrologWait, cfg.Container.IDMap
	n.SpecDirs, n.HookDirs = cfg.Devices.SpecDirs, cfg.Hooks.Dirs
	n.Network, n.Policy = anonymous(cfg), policyOf(cfg)
	n.SubIDs = cfg.Container.SubIDs
	cluster, err := clusterOf(cfg)
	n.ClusterStore = doctor.ClusterStore{Dir: cluster.Dir, Mount: cluster.Mount, ClusterOptions: cluster.ClusterOptions}
	return n, err
}

// slurmConf is the option's file, else $SLURM_CONF as Slurm's own commands
// take it.
func (c *doctorCmd) slurmConf(s *session) string {
	if c.SlurmConf != "" {
		return c.SlurmConf
	}
	return s.env("SLURM_CONF")
}

// print writes one line per finding.
func (c *doctorCmd) print(s *session, found []doctor.Finding) error {
	if c.JSON {
		return s.printJSON(found)
	}
	for _, f := range found {
		line := fmt.Sprintf("%-4s  %s: %s", f.Status, f.Check, f.Detail)
		if f.Remedy != "" {
			line += "; to do: " + f.Remedy
		}
		if _, err := fmt.Fprintln(s.stdout, printable(line)); err != nil {
			return err
		}
	}
	return nil
}

// verdict is the site's fault when a check failed.
func verdict(found []doctor.Finding) error {
	failed := 0
	for _, f := range found {
		if f.Status == doctor.Fail {
			failed++
		}
	}
	if failed == 0 {
		return nil
	}
	return &fault.Error{
		Op: "examine this machine", Blame: fault.Site, Err: fmt.Errorf("%d of %d checks failed", failed, len(found)),
		Remedy: "do what the lines with fail say",
	}
}
