// Package prolog is what a node does before and after a job: it gets the job's
// image into the store, mounts it, remembers who uses it, and undoes that.
// Slurm's plugin and PBS's hooks start it; nothing here knows either.
//
//	prepare_linux.go   records the request, starts the worker       (root)
//	worker.go          digest, store, lease, mount, outcome         (root)
//	rights.go          who may use an image that the store has      (root)
//	grants.go          what registries said of that, for a while    (root)
//	asking_linux.go    asks without a login, then with the user's   (root)
//	fetcher_linux.go   starts the fetcher and listens to it         (root)
//	converter_linux.go starts the converter and the checker         (root)
//	fetch.go           speaks to the registry                       (the account)
//	convert_linux.go   converts, checks                             (the account, another one; shut in)
//	sandbox/           shuts a process in
//	cluster_linux.go   the way through a store that nodes share     (root)
//	inplace_linux.go   images used where that store has them        (root)
//	signature.go       looks for signatures                         (the account)
//	policy_linux.go    applies the site's policy                    (root)
//	job_linux.go       a job's account and partition                (root)
//	warm_linux.go      images before a job asks for them            (root)
//	count_linux.go     counts what was done, tidies records         (root)
//	lend_linux.go      images for users' own processes, outside of jobs (root)
//	image.go           leases and mounts, under one lock            (root)
//	room_linux.go      reserves and makes room in the store         (root)
//	cleanup_linux.go   stops workers, ends leases, mounts and pins  (root)
//	reap_linux.go      does that for jobs whose epilog never ran    (root)
//	jobstate/          the folders all of them write and read
//
// A preparation runs detached, because it takes longer than a scheduler lets
// its prolog take: Slurm drains a node whose prolog times out. Whoever starts
// it waits a moment (PrologWait); the job's own tasks wait for the rest, where
// the user sees progress and can cancel.
//
// Root opens no network connection and reads no byte of an image here. The
// fetcher does the first, as an account without rights; the converter, shut in
// without network and files, the second. Each has a pid namespace of its own:
// when its first process is gone, nothing is left that could still write to
// what root then has checked and publishes.
package prolog

import (
	"fmt"
	"os/user"
	"strconv"
	"strings"
	"time"

	"github.com/berth-hpc/berth/imagecache/store"
	"github.com/berth-hpc/berth/launcher"
	"github.com/berth-hpc/berth/policy"
	"github.com/berth-hpc/berth/prolog/records"
)

// Config is what a node's programs need to know; the command line fills it
// from /etc/berth alone.
type Config struct {
	RunDir   string // /run/berth
	StoreDir string // /var/lib/berth
	// Account is the name of the account for network and layers, or
	// "UID:GID" in numbers.
	Account string
	// Checker is the account under which converted images are checked, in the
	// same forms. It should be another one.
	Checker string
	// PrologWait is how long Prepare waits for the outcome.
	PrologWait time.Duration
	// PrepareDeadline is when a worker gives up, counted from its start.
	PrepareDeadline time.Duration
	// Limits are those of the store; MaxImage that of a file which the fetcher
	// writes, in bytes, zero for none.
	Limits   store.Limits
	MaxImage int64
	// LiveJobs prints the scheduler's jobs on this node, one number a line; "%n"
	// in it stands for the node's name. Empty where nothing is to be reaped.
	LiveJobs []string
	// PBSJobs is the folder in which pbs_mom keeps the jobs of this node. Empty
	// where nothing of PBS is to be reaped.
	PBSJobs string
	// JobFacts prints job, partition and account of the job "%j" in it, as
	// JOB|PARTITION|ACCOUNT, where a rule needs them and slurmd's prolog has
	// not told them.
	JobFacts []string
	// Command starts `berth` again: its path, and options that must come
	// before the subcommand, if any. The account must be able to execute it.
	Command []string
	// Cluster is the store that this node shares with others, if any.
	Cluster ClusterConfig
	// Policy says which images jobs may use.
	Policy policy.Policy
	// Verifier is the path of berth-verify, which the account must be able to
	// execute.
	Verifier string

	// Creator is the path of berth-create; Kept says where jobs' containers with
	// a name are.
	Creator string
	Kept    launcher.Kept

	// GrantTTL is how long a registry's word that a user may use a private
	// image holds; GrantStaleOK lets it hold while the registry does not answer.
	GrantTTL     time.Duration
	GrantStaleOK bool

	// Records bound what is kept of the steps that ran here; Textfile is where
	// Prometheus's node_exporter looks for the counts, "" for beside them.
	Records  records.Limits
	Textfile string

	users func(uid uint32) (looker, error) // systemUser, but in tests
}

func (c Config) command(args ...string) []string {
	return append(c.Command[:len(c.Command):len(c.Command)], args...)
}

// account looks the unprivileged account up. Root as that account is refused:
// the separation would be gone without a sign of it.
func (c Config) account() (uid, gid uint32, err error) {
	if uid, gid, err = lookupAccount(c.Account); err != nil {
		return 0, 0, err
	}
	if uid == 0 || gid == 0 {
		return 0, 0, fmt.Errorf("account %q is root's", c.Account)
	}
	return uid, gid, nil
}

func lookupAccount(name string) (uid, gid uint32, err error) {
	if u, g, ok := strings.Cut(name, ":"); ok {
		return parseIDs(u, g)
	}
	a, err := user.Lookup(name)
	if err != nil {
		return 0, 0, err
	}
	return parseIDs(a.Uid, a.Gid)
}

func parseIDs(u, g string) (uid, gid uint32, err error) {
	if uid, err = parseNumber(u); err != nil {
		return 0, 0, err
	}
	gid, err = parseNumber(g)
	return uid, gid, err
}

// parseNumber reads a 32-bit number in decimal digits, nothing else.
func parseNumber(s string) (uint32, error) {
	if len(s) == 0 || len(s) > 10 || strings.Trim(s, "0123456789") != "" {
		return 0, fmt.Errorf("%q is not a number", s)
	}
	n, err := strconv.ParseUint(s, 10, 32)
	return uint32(n), err
}
