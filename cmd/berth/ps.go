package main

import (
	"cmp"
	"fmt"
	"io"
	"os"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/berth-hpc/berth/fault"
	"github.com/berth-hpc/berth/imagecache/store"
	"github.com/berth-hpc/berth/launcher"
	"github.com/berth-hpc/berth/prolog/jobstate"
)

// psCmd lists containers that run. A user sees their own, by hand and of jobs;
// root those of all jobs, by what their helpers noted: it looks into nobody's
// container.
type psCmd struct {
	JSON bool `name:"json" help:"Print them as JSON."`
}

// A psContainer is one container that runs, as --json prints it.
type psContainer struct {
	Job    string  `json:"job,omitempty"`
	Step   string  `json:"step,omitempty"`
	Name   string  `json:"name,omitempty"`
	UID    int     `json:"uid"`
	Image  string  `json:"image,omitempty"`
	Digest string  `json:"digest,omitempty"`
	PID    int     `json:"pid"` // of its first process
	PIDs   int     `json:"processes"`
	Age    float64 `json:"age_seconds"` // of that process
}

// Run prints a line per container.
func (c *psCmd) Run(s *session) error {
	find := ownContainers
	if s.user.uid == 0 {
		cfg, err := s.settings()
		if err != nil {
			return err
		}
		find = func() ([]psContainer, error) { return containersOfJobs(cfg.Node.RunDir) }
	}
	all, err := find()
	if err != nil {
		return fault.Wrap("look for containers", "", fault.Site, "look at /proc and the node's run folder", err)
	}
	if c.JSON {
		return s.printJSON(all)
	}
	return printContainers(s.stdout, all, s.user.uid == 0)
}

func printContainers(out io.Writer, all []psContainer, users bool) error {
	t := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	head, owner := "JOB\tSTEP\tIMAGE\tPID\tAGE", func(psContainer) string { return "" }
	if users {
		head, owner = "USER\t"+head, func(c psContainer) string { return userName(c.UID) + "\t" }
	}
	fmt.Fprintln(t, head)
	for _, c := range all {
		fmt.Fprintf(t, "%s%s\t%s\t%s\t%d\t%s\n", owner(c), orDash(c.Job), orDash(printable(cmp.Or(c.Name, c.Step))), orDash(printable(c.Image)), c.PID,
			(time.Duration(c.Age) * time.Second).String())
	}
	return t.Flush()
}

func userName(uid int) string {
	if u, err := user.LookupId(strconv.Itoa(uid)); err == nil {
		return u.Username
	}
	return strconv.Itoa(uid)
}

// ownContainers are those in which processes of the caller's are.
func ownContainers() ([]psContainer, error) {
	running, err := launcher.FindRunning()
	all := []psContainer{}
	for _, r := range running {
		all = append(all, psContainer{
			Job: r.Job, Step: r.Step, Name: r.Name, UID: os.Geteuid(), Image: r.Image, PID: r.PIDs[0], PIDs: len(r.PIDs), Age: age(r.PIDs[0]),
		})
	}
	return all, err
}

// containersOfJobs are those that root's helpers noted and in which there is a
// process. It asks the kernel in which mount namespace each process is, and no
// more.
func containersOfJobs(runDir string) ([]psContainer, error) {
	all := []psContainer{}
	noted, err := jobstate.Containers(runDir)
	if err != nil || len(noted) == 0 {
		return all, err
	}
	pids, err := processesByMount()
	for _, c := range noted {
		in := pids[fmt.Sprintf("mnt:[%d]", c.Mount)]
		if len(in) == 0 {
			continue
		}
		all = append(all, psContainer{
			Job: string(c.Job), Step: c.Step, Name: c.Name, UID: int(c.UID), Image: c.Image, Digest: c.Digest, PID: in[0], PIDs: len(in), Age: age(in[0]),
		})
	}
	return all, err
}

func processesByMount() (map[string][]int, error) {
	entries, err := os.ReadDir("/proc")
	pids := map[string][]int{}
	for _, e := range entries {
		pid, aerr := strconv.Atoi(e.Name())
		if aerr != nil {
			continue
		}
		if ns, lerr := os.Readlink(filepath.Join("/proc", e.Name(), "ns/mnt")); lerr == nil {
			pids[ns] = append(pids[ns], pid)
		}
	}
	for _, in := range pids {
		slices.Sort(in)
	}
	return pids, err
}

// age is for how many seconds a process has run; 0 for one that is gone.
func age(pid int) float64 {
	const ticks = 100 // per second, as the kernel tells all programs (USER_HZ)
	start, err := store.ProcessStart(pid)
	up, uerr := os.ReadFile("/proc/uptime")
	if err != nil || uerr != nil {
		return 0
	}
	text, _, _ := strings.Cut(string(up), " ")
	seconds, err := strconv.ParseFloat(text, 64)
	if err != nil {
		return 0
	}
	return max(0, seconds-float64(start)/ticks)
}
