// Package doctor finds out what keeps Berth from working on this machine. It
// is `berth doctor`: a table of checks, each a small function that tries the
// thing itself. Nothing is concluded from a kernel's version: distributions
// backport, and administrators switch off.
//
// Some checks need a place of their own. Berth starts itself again for them
// (Part), in namespaces that end with the process, so that a check that is
// killed leaves nothing behind:
//
//	here     the caller's process
//	user     an ordinary user: the caller, or the node's account for root
//	inside   a user and a mount namespace of that user
//	mounts   a private mount namespace of root
package doctor

import (
	"context"
	"slices"
	"time"

	"github.com/berth-hpc/berth/imagecache"
	"github.com/berth-hpc/berth/policy"
)

// A Status says how bad a finding is.
type Status string

// Warn is for what works in a lesser way, Fail for what does not.
const (
	OK   Status = "ok"
	Warn Status = "warn"
	Fail Status = "fail"
)

// A Finding is one line: what was found, and what to do about it unless it is
// fine.
type Finding struct {
	Check  string `json:"check"`
	Status Status `json:"status"`
	Detail string `json:"detail"`
	Remedy string `json:"remedy,omitempty"`
}

// A Node is the machine as Berth's settings describe it. It travels to the
// parts as JSON.
type Node struct {
	Command []string // starts berth again: its path
	Libexec string   // folder of berth-create and berth-join
	Root    bool     // whether root examines it
	// ConfigError is why the settings could not be read, "" when they could;
	// the rest is then what holds without them.
	ConfigError, ConfigRemedy string

	ClusterStore ClusterStore

	StoreDir string // the node's store
	UserDir  string // the caller's own store
	RunDir   string
	// MountSocket is where users' own berth run asks for the node's images.
	MountSocket string
	Account     string
	PrologWait  time.Duration
	SubIDs      bool // container.sub_ids
	IDMap       bool // whether the site wants idmapped image mounts
	Network     imagecache.Network
	Policy      policy.Policy

	SpecDirs []string // of CDI
	HookDirs []string // of OCI hooks

	SlurmConf string // slurm.conf, "" to look for it
}

// A Part is a process in which checks run.
type Part string

// Parts, see the package comment. Wait keeps a user namespace alive.
const (
	Here   Part = "here"
	User   Part = "user"
	Inside Part = "inside"
	Mounts Part = "mounts"
	Wait   Part = "wait"
)

// A check looks at one thing. It returns a finding for each thing that it has
// to say something of, usually one, and none where it does not apply. The
// runner fills in its name.
type check struct {
	name string
	part Part
	run  func(ctx context.Context, n *Node) []Finding // nil: the part's start is the check
	root bool                                         // only for root
}

// checks is in the order of the report.
func checks() []check {
	return []check{
		{name: "settings", part: Here, run: checkSettings},
		{name: "programs", part: Here, run: checkPrograms},
		{name: "kernel calls", part: Here, run: checkCalls},
		{name: "user namespaces", part: Inside},
		{name: "overlay", part: Inside, run: checkOverlay},
		{name: "writable containers", part: Inside, run: checkOpaque},
		{name: "root in appearance", part: Inside, run: checkFilter},
		{name: "further ids", part: Here, run: checkSubIDs},
		{name: "FUSE", part: Inside, run: checkFUSE},
		{name: "squashfuse", part: Here, run: checkSquashfuse},
		{name: "groups", part: Here, run: checkGroups},
		{name: "mount socket", part: Here, run: checkMountSocket},
		{name: "converter", part: Inside, run: checkConverter},
		{name: "unpacker", part: Here, run: checkUnpacker},
		{name: "own store", part: Here, run: checkOwnStore},
		{name: "account", part: User},
		{name: "loop devices", part: Here, run: checkLoop, root: true},
		{name: "image mounts", part: Mounts},
		{name: "squashfs", part: Mounts, run: checkSquashfs},
		{name: "node store", part: Here, run: checkNodeStore},
		{name: "cluster store", part: Here, run: checkClusterStore, root: true},
		{name: "run folder", part: Here, run: checkRunDir},
		{name: "devices", part: Here, run: checkDevices},
		{name: "hooks", part: Here, run: checkHooks},
		{name: "registry", part: User, run: checkRegistries},
		{name: "policy keys", part: Here, run: checkKeys, root: true},
		{name: "verifier", part: User, run: checkVerifier},
		{name: "slurm.conf", part: Here, run: checkSlurmConf},
		{name: "prolog flags", part: Here, run: checkPrologFlags},
		{name: "prolog timeout", part: Here, run: checkPrologTimeout},
		{name: "batch start timeout", part: Here, run: checkBatchStart},
		{name: "accounts", part: Here, run: checkAccounts},
		{name: "process tracking", part: Here, run: checkProctrack},
		{name: "job container", part: Here, run: checkJobContainer},
		{name: "plugstack.conf", part: Here, run: checkPlugstack},
		{name: "plugin", part: Here, run: checkPlugin},
		{name: "leftovers", part: Here, run: checkLeftovers, root: true},
	}
}

// partLimit bounds a part, and with it a call that never returns.
const partLimit = 20 * time.Second

// Examine runs all checks that the caller may run, in the table's order.
func Examine(ctx context.Context, n *Node) []Finding {
	var found []Finding
	if n.Root {
		found = slices.Concat(RunPart(ctx, n, Here), startPart(ctx, n, User), startPart(ctx, n, Mounts))
	} else {
		found = slices.Concat(RunPart(ctx, n, Here), RunPart(ctx, n, User))
	}
	order := map[string]int{}
	for i, c := range checks() {
		order[c.name] = i
	}
	slices.SortStableFunc(found, func(a, b Finding) int { return order[a.Check] - order[b.Check] })
	return found
}

// RunPart runs the checks of one part in the calling process, and starts the
// parts that belong to it.
func RunPart(ctx context.Context, n *Node, part Part) []Finding {
	var found []Finding
	for _, c := range checks() {
		if c.part != part || c.run == nil || c.root && !n.Root {
			continue
		}
		for _, f := range c.run(ctx, n) {
			f.Check = c.name
			found = append(found, f)
		}
	}
	if part == User {
		found = append(found, startPart(ctx, n, Inside)...)
	}
	return found
}

// one is the usual result of a check.
func one(status Status, detail, remedy string) []Finding {
	return []Finding{{Status: status, Detail: detail, Remedy: remedy}}
}

func good(detail string) []Finding { return one(OK, detail, "") }
