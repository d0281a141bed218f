package doctor

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// slurmFiles are where slurm.conf may be: the usual places, and slurmd's copy
// on clusters that hand it out ("configless").
func slurmFiles() []string {
	return []string{
		"/etc/slurm/slurm.conf", "/etc/slurm-llnl/slurm.conf", "/opt/slurm/etc/slurm.conf",
		"/run/slurm/conf/slurm.conf", "/var/spool/slurmd/conf-cache/slurm.conf",
	}
}

// A slurmConf is slurm.conf: keys in lower case.
type slurmConf struct {
	path   string
	values map[string]string
}

// readSlurm finds and reads slurm.conf; nil where there is none.
func readSlurm(n *Node) (*slurmConf, error) {
	files := slurmFiles()
	if n.SlurmConf != "" {
		files = []string{n.SlurmConf}
	}
	for _, path := range files {
		if _, err := os.Stat(path); err == nil || n.SlurmConf != "" {
			c := &slurmConf{path: path, values: map[string]string{}}
			return c, c.read(path, 0)
		}
	}
	return nil, nil
}

// read adds a file and those that it includes.
func (c *slurmConf) read(path string, depth int) error {
	text, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	for _, line := range lines(string(text)) {
		if file, ok := includes(line); ok && depth < 8 {
			if !filepath.IsAbs(file) {
				file = filepath.Join(filepath.Dir(c.path), file)
			}
			if err := c.read(file, depth+1); err != nil {
				return err
			}
			continue
		}
		if key, value, ok := strings.Cut(line, "="); ok {
			c.values[strings.ToLower(strings.TrimSpace(key))] = strings.TrimSpace(value)
		}
	}
	return nil
}

func includes(line string) (file string, ok bool) {
	word, rest, ok := strings.Cut(line, " ")
	return strings.TrimSpace(rest), ok && strings.EqualFold(word, "include")
}

// get returns a value, or what Slurm takes without one.
func (c *slurmConf) get(key, builtin string) string {
	if v := c.values[strings.ToLower(key)]; v != "" {
		return v
	}
	return builtin
}

// seconds returns a time, and false for none or no limit.
func (c *slurmConf) seconds(keys ...string) (time.Duration, bool) {
	for _, key := range keys {
		n, err := strconv.Atoi(c.get(key, ""))
		if err == nil && n > 0 && n < 65534 { // 65534: as good as none
			return time.Duration(n) * time.Second, true
		}
	}
	return 0, false
}

// flags splits a list of words.
func (c *slurmConf) flags(key string) map[string]bool {
	set := map[string]bool{}
	for _, f := range strings.Split(c.get(key, ""), ",") {
		set[strings.ToLower(strings.TrimSpace(f))] = true
	}
	return set
}

// withSlurm runs a check of slurm.conf where there is a readable one.
func withSlurm(n *Node, f func(*slurmConf) []Finding) []Finding {
	c, err := readSlurm(n)
	if c == nil || err != nil {
		return nil // told by checkSlurmConf
	}
	return f(c)
}

func checkSlurmConf(_ context.Context, n *Node) []Finding {
	c, err := readSlurm(n)
	switch {
	case err != nil:
		return one(Fail, oneLine(err), "let everyone read slurm.conf and what it includes")
	case c == nil:
		return good("none here: not a machine of a Slurm cluster")
	}
	return good(c.path)
}

// checkPrologFlags: when job_prolog runs decides when images are prepared.
func checkPrologFlags(_ context.Context, n *Node) []Finding {
	return withSlurm(n, func(c *slurmConf) []Finding {
		flags := c.flags("PrologFlags")
		switch {
		case flags["serial"]:
			return one(Warn, "PrologFlags=Serial: jobs on a node prepare their images one after the other", "remove Serial from PrologFlags in slurm.conf")
		case flags["alloc"] || flags["contain"] || flags["x11"]:
			return good("the prolog runs when a job is allocated: images are prepared on all its nodes at once")
		}
		return one(Warn, "without PrologFlags=Alloc the prolog runs with a job's first step on a node: images are not prepared before",
			"PrologFlags=Alloc in slurm.conf")
	})
}

// What Berth's plugin does in a prolog besides its wait for the image, and how
// long the end of a job may take (spank/prolog.c).
const (
	prologSlack  = 2 * time.Second
	cleanupLimit = 10 * time.Second
)

// checkPrologTimeout: 22.05 has one limit for prolog and epilog, later
// releases have PrologTimeout and EpilogTimeout, too.
func checkPrologTimeout(_ context.Context, n *Node) []Finding {
	return withSlurm(n, func(c *slurmConf) []Finding {
		wait := prologWait(n, c)
		need := wait + prologSlack
		limit, limited := c.seconds("PrologTimeout", "PrologEpilogTimeout")
		if limited && limit <= need {
			return one(Fail, fmt.Sprintf("the prolog may take %s and waits for an image up to %s and starts it: a slow registry drains the node", limit, wait),
				fmt.Sprintf("prolog_wait=1000 in plugstack.conf, or PrologEpilogTimeout=%d in slurm.conf", int((need+cleanupLimit).Seconds())))
		}
		end, limited := c.seconds("EpilogTimeout", "PrologEpilogTimeout")
		if limited && end <= cleanupLimit {
			return one(Warn, fmt.Sprintf("the epilog may take %s, and the end of a job that still pulls up to %s", end, cleanupLimit),
				fmt.Sprintf("PrologEpilogTimeout=%d in slurm.conf", int((2*cleanupLimit).Seconds())))
		}
		return good(fmt.Sprintf("the prolog waits %s for an image, within what Slurm allows", wait))
	})
}

// prologWait is the plugin's wait: its argument, else its built-in value.
func prologWait(n *Node, c *slurmConf) time.Duration {
	if p, err := findPlugin(c); err == nil && p != nil {
		if ms, err := strconv.Atoi(p.args["prolog_wait"]); err == nil {
			return time.Duration(ms) * time.Millisecond
		}
	}
	return max(n.PrologWait, 2*time.Second)
}

// checkBatchStart: a batch script that has not started by then is requeued.
func checkBatchStart(_ context.Context, n *Node) []Finding {
	return withSlurm(n, func(c *slurmConf) []Finding {
		limit, ok := c.seconds("BatchStartTimeout")
		if !ok {
			limit = 10 * time.Second // Slurm's default
		}
		if need := prologWait(n, c) + prologSlack; limit <= need {
			return one(Warn, fmt.Sprintf("BatchStartTimeout is %s and the prolog may take %s: batch jobs can be lost at their start", limit, need),
				"BatchStartTimeout=10 or more in slurm.conf")
		}
		return good(limit.String() + ", more than the prolog takes")
	})
}

func checkProctrack(_ context.Context, n *Node) []Finding {
	return withSlurm(n, func(c *slurmConf) []Finding {
		kind := c.get("ProctrackType", "proctrack/cgroup")
		if kind == "proctrack/cgroup" {
			return good(kind)
		}
		return one(Warn, kind+" loses processes that leave their parent: they outlive their job, and keep its image mounted", "ProctrackType=proctrack/cgroup in slurm.conf")
	})
}

func checkJobContainer(_ context.Context, n *Node) []Finding {
	return withSlurm(n, func(c *slurmConf) []Finding {
		kind := c.get("JobContainerType", "job_container/none")
		flags := c.flags("PrologFlags")
		switch {
		case kind == "job_container/tmpfs" && !flags["contain"]:
			return one(Fail, "job_container/tmpfs without PrologFlags=Contain: a job's private /tmp is not made before its steps", "PrologFlags=Contain in slurm.conf")
		case kind == "job_container/tmpfs":
			return good("containers see the job's private /tmp")
		case kind == "job_container/none":
			return good("jobs share /tmp")
		}
		return one(Warn, kind+" is not known to Berth", "see that /tmp in a container is the one of the job")
	})
}

// slurmRelease asks Slurm's programs for their release, as "22.05".
func slurmRelease(ctx context.Context) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	var err error
	for _, args := range [][]string{{"slurmd", "-V"}, {"sinfo", "--version"}, {"srun", "--version"}} {
		var out []byte
		if out, err = exec.CommandContext(ctx, args[0], args[1:]...).Output(); err == nil {
			return releaseIn(string(out))
		}
	}
	return "", err
}

// releaseIn takes major and minor out of "slurm-wlm 22.05.8".
func releaseIn(text string) (string, error) {
	words := strings.Fields(text)
	if len(words) == 0 {
		return "", fmt.Errorf("no release in %q", text)
	}
	parts := strings.Split(words[len(words)-1], ".")
	if len(parts) < 2 {
		return "", fmt.Errorf("no release in %q", text)
	}
	return parts[0] + "." + parts[1], nil
}
