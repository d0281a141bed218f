package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"

	"github.com/berth-hpc/berth/cmd/internal/config"
	"github.com/berth-hpc/berth/cmd/internal/nodelog"
	"github.com/berth-hpc/berth/cmd/internal/site"
	"github.com/berth-hpc/berth/fault"
	"github.com/berth-hpc/berth/imagecache"
	"github.com/berth-hpc/berth/imagecache/credentials"
	"github.com/berth-hpc/berth/imagecache/store"
	"github.com/berth-hpc/berth/prolog"
	"github.com/berth-hpc/berth/prolog/jobstate"
	"github.com/berth-hpc/berth/prolog/records"
	"github.com/sirupsen/logrus"
	"golang.org/x/sys/unix"
)

// nodeCmd is the root side of a managed node. Schedulers' hooks start it with
// a fixed environment; all of it reads the site's settings alone.
type nodeCmd struct {
	Prepare nodePrepareCmd `cmd:"" help:"Have a job's image made ready; the request is on standard input (root)."`
	Cleanup nodeCleanupCmd `cmd:"" help:"Undo what was made for a job; the request is on standard input (root)."`
	Reap    nodeReapCmd    `cmd:"" help:"Undo what was made for jobs whose cleanup never ran (root)."`
	Status  nodeStatusCmd  `cmd:"" help:"Show the store, and what is prepared and runs for the jobs on this node (root)."`
	Lend    nodeLendCmd    `cmd:"" name:"mount-request" hidden:"" help:"Serve a user's own berth run. Only berth-mount.socket starts it."`
	Worker  nodeWorkerCmd  `cmd:"" hidden:"" help:"Prepare one image. Only prepare starts it."`
	Fetch   nodeFetchCmd   `cmd:"" hidden:"" help:"Get one image. Only worker starts it, as the account for it."`
	Convert nodeConvertCmd `cmd:"" hidden:"" help:"Convert one image. Only worker starts it."`
	Check   nodeCheckCmd   `cmd:"" hidden:"" help:"Check one converted image. Only worker starts it."`

	Devices     nodeDevicesCmd     `cmd:"" hidden:"" help:"Read the node's CDI specs. Only the helper of a step starts it."`
	Credentials nodeCredentialsCmd `cmd:"" hidden:"" help:"Look for a login. Only worker starts it, as the user."`
}

// site returns the settings for root's part of a node, and refuses others.
func (s *session) site() (prolog.Config, error) {
	node, _, err := s.siteSettings()
	return node, err
}

// siteSettings is site, with all the settings that it was made of.
func (s *session) siteSettings() (prolog.Config, *config.Config, error) {
	if s.user.uid != 0 {
		return prolog.Config{}, nil, &fault.Error{
			Op: "look after this node", Blame: fault.User, Err: errors.New("only root may"),
			Remedy: "run it as root; users run images by: berth run IMAGE COMMAND",
		}
	}
	cfg, err := config.Load(config.Source{Dir: s.configDir})
	if err != nil {
		return prolog.Config{}, nil, err
	}
	limits, err := spaceLimits(cfg.Store.Space, cfg.Store.Dir, "store.")
	if err != nil {
		return prolog.Config{}, nil, err
	}
	self, err := os.Executable()
	if err != nil {
		return prolog.Config{}, nil, err
	}
	cluster, err := clusterOf(cfg)
	return prolog.Config{
		RunDir: cfg.Node.RunDir, StoreDir: cfg.Store.Dir, Account: cfg.Node.Account, Checker: cfg.Node.Checker,
		PrologWait: cfg.Node.PrologWait, PrepareDeadline: cfg.Node.PrepareDeadline,
		Limits: limits, MaxImage: int64(cfg.Store.MaxImage), LiveJobs: cfg.Node.LiveJobs, PBSJobs: cfg.Node.PBSJobs, JobFacts: cfg.Node.JobFacts,
		Command: []string{self}, Cluster: cluster, Policy: policyOf(cfg),
		GrantTTL: cfg.Grants.TTL, GrantStaleOK: cfg.Grants.StaleOK,
		Verifier: filepath.Join(filepath.Dir(filepath.Dir(self)), "libexec", "berth", "berth-verify"),
		Creator:  filepath.Join(filepath.Dir(filepath.Dir(self)), "libexec", "berth", "berth-create"),
		Kept:     site.Kept(&cfg.Container),
		Records:  records.Limits{Keep: cfg.Records.Keep, Jobs: cfg.Records.Jobs, Bytes: int64(cfg.Records.Size)}, Textfile: cfg.Records.Textfile,
	}, cfg, err
}

// clusterOf returns the settings of the store that this node shares.
func clusterOf(cfg *config.Config) (prolog.ClusterConfig, error) {
	host, err := os.Hostname()
	return prolog.ClusterConfig{
		Dir: cfg.Cluster.Dir, Mount: cfg.Cluster.Use == config.Mount,
		ClusterOptions: store.ClusterOptions{
			Host: host, Writer: cfg.Cluster.Writes(host), Stale: cfg.Cluster.LockTimeout,
			Lease: cfg.Cluster.Lease, RemoveDelay: cfg.Cluster.RemoveDelay, Patience: cfg.Cluster.Timeout,
			Quota: int64(cfg.Cluster.Quota), LowWater: cfg.Cluster.LowWater.Of(int64(cfg.Cluster.Quota)),
		},
	}, err
}

// nodePrepareCmd is what a job's prolog starts.
type nodePrepareCmd struct{}

// Run returns as soon as the outcome is recorded, or after node.prolog_wait.
func (*nodePrepareCmd) Run(ctx context.Context, s *session) error {
	cfg, err := s.site()
	if err != nil {
		return err
	}
	return nodeFault("prepare", prolog.Prepare(ctx, cfg, s.stdin))
}

// nodeCleanupCmd is what a job's epilog starts.
type nodeCleanupCmd struct{}

// Run may be called any number of times, also for unknown jobs.
func (*nodeCleanupCmd) Run(ctx context.Context, s *session) error {
	cfg, err := s.site()
	if err != nil {
		return err
	}
	return nodeFault("cleanup", prolog.Cleanup(ctx, cfg, s.stdin))
}

// nodeReapCmd is for jobs whose epilog never ran.
type nodeReapCmd struct {
	PBS  bool `name:"pbs" help:"Only PBS's jobs, and those of the last minutes, too: for when pbs_mom starts."`
	JSON bool `name:"json" help:"Print the jobs as JSON."`
}

// Run prints a job a line.
func (c *nodeReapCmd) Run(ctx context.Context, s *session) error {
	cfg, err := s.site()
	if err != nil {
		return err
	}
	reap := prolog.Reap
	if c.PBS {
		reap = prolog.ReapPBS
	}
	reaped, err := reap(ctx, cfg)
	if c.JSON {
		return errors.Join(err, s.printJSON(append([]jobstate.JobID{}, reaped...)))
	}
	for _, job := range reaped {
		fmt.Fprintln(s.stdout, job)
	}
	return nodeFault("reap", err)
}

// nodeFault makes an error of a node that has no blame yet the site's: what
// fails there is a file system or a kernel.
func nodeFault(command string, err error) error {
	return fault.Wrap("node", command, fault.Site, "look at the node's run folder and kernel log", err)
}

// nodeWorkerCmd prepares one image, detached from whoever asked for it.
type nodeWorkerCmd struct {
	Folder string `arg:"" help:"The folder of the request."`
	Login  bool   `help:"Read what the job's session says of the user's login from descriptor 4."`
}

// Run logs to standard error, which is the preparation's log.
func (c *nodeWorkerCmd) Run(ctx context.Context, s *session) error {
	cfg, all, err := s.siteSettings()
	if err != nil {
		return err
	}
	if err := inherited(unix.S_IFREG); err != nil {
		return err
	}
	s.log.SetLevel(max(s.log.GetLevel(), logrus.InfoLevel))
	s.log.SetFormatter(&logrus.TextFormatter{FullTimestamp: true, DisableColors: true})
	nodelog.System().Attach(s.log, all.Log.To)
	return nodeFault("worker", prolog.Work(ctx, s.log, cfg, c.Folder, c.login()))
}

// login is nil where nobody asked the job's session.
func (c *nodeWorkerCmd) login() io.Reader {
	if !c.Login {
		return nil
	}
	unix.CloseOnExec(4)
	return os.NewFile(4, "login")
}

// nodeFetchCmd speaks to a registry, without rights.
type nodeFetchCmd struct{}

// Run answers on descriptor 3, and hands layers over on descriptor 4.
func (*nodeFetchCmd) Run(ctx context.Context, s *session) error {
	if err := inherited(unix.S_IFIFO); err != nil {
		return err
	}
	cfg, err := config.Load(config.Source{Dir: s.configDir})
	if err != nil {
		return err
	}
	dir, err := os.Getwd()
	if err != nil {
		return err
	}
	return prolog.Fetch(ctx, fetchOptions(cfg, withMirrorLogins(anonymous(cfg), cfg)), s.stdin, os.NewFile(3, "events"), os.NewFile(4, "converter"), dir)
}

// withMirrorLogins adds the site's own logins, which no user may read.
func withMirrorLogins(net imagecache.Network, cfg *config.Config) imagecache.Network {
	for host, r := range cfg.Registry {
		if r.MirrorLogin != "" {
			h := net.Hosts[host]
			h.MirrorLogins = imagecache.Keychain(credentials.SiteFile{Path: r.MirrorLogin})
			net.Hosts[host] = h
		}
	}
	return net
}

// inherited says whether descriptor 3 is of a type that Berth's own
// programs leave there.
func inherited(kinds ...uint32) error {
	var st unix.Stat_t
	if err := unix.Fstat(3, &st); err != nil || !slices.Contains(kinds, st.Mode&unix.S_IFMT) {
		return errBerthsOwn()
	}
	return nil
}

func errBerthsOwn() error {
	return &fault.Error{
		Op: "start", Blame: fault.User, Err: errors.New("this command is Berth's own"),
		Remedy: "see berth node --help for those that are meant to be typed",
	}
}
