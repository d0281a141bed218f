package main

import (
	"context"
	"errors"
	"os"
	"path/filepath"

	"github.com/berth-hpc/berth/cmd/internal/config"
	"github.com/berth-hpc/berth/cmd/internal/site"
	"github.com/berth-hpc/berth/launcher"
	"github.com/berth-hpc/berth/launcher/devices"
	"github.com/berth-hpc/berth/launcher/lend"
	"github.com/berth-hpc/berth/prolog"
	"github.com/sirupsen/logrus"
	"golang.org/x/sys/unix"
)

// nodeLendCmd serves one user's own `berth run`. systemd starts it for each
// connection to berth-mount.socket, which is standard input.
type nodeLendCmd struct{}

// Run answers and ends. What it has to say besides is for the journal.
func (*nodeLendCmd) Run(ctx context.Context, s *session) error {
	node, cfg, err := s.siteSettings()
	if err != nil {
		return err
	}
	var st unix.Stat_t
	if err := unix.Fstat(0, &st); err != nil || st.Mode&unix.S_IFMT != unix.S_IFSOCK {
		return errBerthsOwn()
	}
	conn, err := launcher.NewSocket(0)
	if err != nil {
		return err
	}
	defer conn.Close()
	mounts, err := launcher.OpenMounts(ctx, node.RunDir)
	if err != nil {
		return nodeFault("lend", err)
	}
	defer mounts.Close()
	s.log.SetLevel(max(s.log.GetLevel(), logrus.InfoLevel))
	create := filepath.Join(filepath.Dir(filepath.Dir(node.Command[0])), "libexec", "berth", "berth-create")
	return nodeFault("lend", lend.Serve(ctx, s.log, conn, &lender{node, mounts, s.log}, lend.Settings{
		Exe: create, RunDir: node.RunDir, Site: site.Of(&cfg.Container),
		MountDir: cfg.Container.MountDir, IDMap: cfg.Container.IDMap,
		Devices: devices.Wish{Always: cfg.Devices.Always, Scheduler: cfg.Devices.Scheduler, Minimal: cfg.Container.Dev == config.MinimalDev},
	}))
}

// A lender is a node that lends its images.
type lender struct {
	cfg    prolog.Config
	mounts *launcher.Mounts
	log    *logrus.Logger
}

// Lend implements lend.Node.
func (l *lender) Lend(ctx context.Context, p lend.Peer, image, digest string) (*lend.Image, error) {
	ready, err := prolog.Lend(ctx, l.log, l.cfg, prolog.Borrower{
		UID: uint32(p.User.UID), GID: uint32(p.User.GID), PID: p.PID,
	}, image, digest)
	if err != nil {
		return nil, err
	}
	mount, err := l.mounts.CloneImage(ready.Mount)
	if err != nil {
		return nil, err
	}
	settings, err := os.Open(ready.Config())
	if err != nil {
		return nil, errors.Join(err, mount.Close())
	}
	return &lend.Image{Mount: mount, Config: settings}, nil
}

// mountSocket is where this node lends, "" where it does not or where that is
// of no use for this command.
func (c *runCmd) mountSocket(s *session, cfg *config.Config) string {
	var st unix.Stat_t
	path := cfg.Node.MountSocket
	switch {
	case s.user.uid == 0, c.Name != "", c.Platform != "", imageIsFile(c.Image):
		return ""
	case unix.Stat(path, &st) != nil || st.Mode&unix.S_IFMT != unix.S_IFSOCK:
		return ""
	}
	return path
}
