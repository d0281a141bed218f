package e2e

import (
	"fmt"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/berth-hpc/berth/testdata/cluster"
	"github.com/berth-hpc/berth/testdata/deploy"
	"github.com/berth-hpc/berth/testdata/docs"
)

// What a failure must leave: an exit code that is not 0, one line with the
// cause and one with the remedy (once per node, not per task), a node that
// takes jobs, and nothing of the job.

var nodes = []string{"n1", "n2", "n3"}

// clean fails the test unless every node is idle and has nothing left.
func (s *site) clean(t *testing.T) {
	t.Helper()
	s.idle(t)
	for _, node := range nodes {
		if out := deploy.Leftovers(t, s.With(t), node); out != "" {
			t.Errorf("left on %s:\n%s", node, out)
		}
	}
}

// forget removes every image from the nodes' stores. No job may run.
func (s *site) forget(t *testing.T) {
	t.Helper()
	for _, node := range nodes {
		s.With(t).MustRun(t.Context(), node, "root", "sh", "-c", "rm -rf /var/lib/berth/images/sha256/*")
	}
}

// times counts the lines of text that match.
func times(line, text string) int {
	return len(regexp.MustCompile("(?m)"+line).FindAllString(text, -1))
}

// A failure is a step that must not succeed.
type failure struct {
	name  string
	args  string // of srun and, without the command, sbatch
	cause string // regular expressions, each for one line
	fix   string
	// submit: it is refused before a job begins. Else each node says it once.
	submit bool
	// unpinned: srun says it, too, but not as an error, and goes on; to one
	// node, because Berth refuses several without a pin.
	unpinned bool
	code     int // 0 for any but 0
}

// lines is how often cause and remedy are to be read.
func (f failure) lines(nodes int, batch bool) (causes, fixes int) {
	switch {
	case f.submit:
		return 1, 1
	case f.unpinned && !batch:
		return nodes, nodes + 1
	}
	return nodes, nodes
}

// check looks at what the user got of a step on so many nodes. A batch job's
// output has no lines of its submission.
func (f failure) check(t *testing.T, r cluster.Result, nodes int, batch bool) {
	t.Helper()
	if r.Code == 0 || r.Code == 124 || f.code != 0 && r.Code != f.code {
		t.Errorf("want exit code %d (0: any but 0): %v", f.code, r)
	}
	causes, fixes := f.lines(nodes, batch)
	if n := times(`^berth: (error: )?`+f.cause, r.Stderr); n != causes {
		t.Errorf("the cause is there %d times, want %d: %v", n, causes, r)
	}
	if n := times(`^berth:   `+f.fix, r.Stderr); n != fixes {
		t.Errorf("the remedy is there %d times, want %d: %v", n, fixes, r)
	}
	if times(`^ran$`, r.Stdout+r.Stderr) != 0 {
		t.Errorf("the command ran: %v", r)
	}
	documented(t, r.Stderr)
}

// documented fails the test unless docs/troubleshooting.md has Berth's errors.
func documented(t *testing.T, output string) {
	t.Helper()
	all, err := docs.Messages(deploy.Root())
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range regexp.MustCompile(`(?m)^(?:s\w+: error: )?berth: (?:error: )?(\S.*)$`).FindAllStringSubmatch(output, -1) {
		if _, ok := docs.Explain(all, m[1]); !ok {
			t.Errorf("docs/troubleshooting.md does not have: %s", m[1])
		}
	}
}

// A registry whose certificate nobody knows.
const private = "10.97.0.1:5443"

func (s *site) startPrivateRegistry(t *testing.T) {
	t.Helper()
	s.Spawn("private", cluster.Command{Machine: "ctl", Args: []string{
		"test-registry", "--listen", private, "--dir", "/var/lib/private", "--ca-file", "/shared/ca.pem", "--ready-file", "/run/private.ready",
	}})
	s.MustRun(t.Context(), "ctl", "root", "timeout", "100", "sh", "-c", "until [ -s /run/private.ready ]; do sleep 0.05; done")
}

// wrong is a repository of the registry that fails on purpose.
func wrong(how string) string { return "--container-image=" + registry + "/faults/" + how + "/tiny:1" }

// userFailures are what users and registries do wrong. Paths in them are
// those of TestFailures.
var userFailures = []failure{
	{
		name: "no such image", args: "--container-image=" + registry + "/nothing:1 echo ran", submit: true,
		cause: `resolve .*/nothing:1: .* 404 Not Found`, fix: `check the spelling of .* and its tag`,
	},
	{
		name: "no such tag", args: "--container-image=" + registry + "/tiny:2 echo ran", submit: true,
		cause: `resolve .*/tiny:2: .* 404 Not Found`, fix: `check the spelling of tiny and its tag`,
	},
	{
		name: "not a reference", args: "--container-image=UPPER/case:1 echo ran", submit: true,
		cause: `.*UPPER/case`, fix: `.*`,
	},
	{
		name: "401", args: wrong("status-401") + " echo ran", submit: true,
		cause: `resolve .* 401 Unauthorized`, fix: `check the spelling of .*the image is private: log in with`,
	},
	{
		name: "403", args: wrong("status-403") + " echo ran", submit: true,
		cause: `resolve .* 403 Forbidden`, fix: `check the spelling of .*the image is private: log in with`,
	},
	{
		name: "private", args: wrong("auth") + " echo ran", submit: true,
		cause: `resolve .* 401 Unauthorized`, fix: `check the spelling of .*the image is private: log in with`,
	},
	{
		name: "other platform", args: wrong("platform") + " echo ran", submit: true,
		cause: `resolve .*choose platform linux/amd64: the image is for linux/s390x`, fix: `use an image built for linux/amd64`,
	},
	{
		name: "401 at the node", args: wrong("manifest-401") + " echo ran",
		cause: `pull .* 401 Unauthorized`, fix: `check the spelling of .*the image is private, and it was asked for without a login`,
	},
	{
		name: "403 at the node", args: wrong("manifest-403") + " echo ran",
		cause: `pull .* 403 Forbidden`, fix: `check the spelling of .*the image is private, and it was asked for without a login`,
	},
	{
		name: "404 of a layer", args: wrong("manifest-404") + " echo ran",
		cause: `pull .* 404 Not Found`, fix: `check the spelling of .* and its tag`,
	},
	{
		name: "429", args: wrong("manifest-429") + " echo ran",
		cause: `pull .* 429 Too Many Requests`, fix: `.*limits how often it may be asked; try again later`,
	},
	{
		name: "503", args: wrong("manifest-503") + " echo ran",
		cause: `pull .* 503 Service Unavailable`, fix: `.*has trouble of its own; try again later`,
	},
	{
		name: "cut in mid-layer", args: wrong("layer-cut") + " echo ran",
		cause: `pull .*transfer layer 1 of 2: \S+ sent \d+ of \d+ bytes: unexpected EOF`, fix: `the connection to \S+ breaks off`,
	},
	{
		name: "altered layer", args: wrong("layer-flip") + " echo ran",
		cause: `pull .*verify layer 1: got sha256:\S+, not sha256:`, fix: `try again; if it stays, \S+ or a proxy on the way`,
	},
	{
		name: "registry down", args: "--container-image=10.97.0.1:5999/x:1 echo ran",
		unpinned: true,
		cause:    `error: resolve .*10\.97\.0\.1:5999: connect: connection refused`, fix: `nothing listens at`,
	},
	{
		name: "registry down and several nodes", args: "--container-image=10.97.0.1:5999/several:1 echo ran",
		cause: `error: start on several nodes .*: the image's registry could not be asked`, fix: `submit again when the registry answers`,
	},
	{
		name: "wrong CA", args: "--container-image=" + private + "/x:1 echo ran",
		unpinned: true,
		cause:    `error: resolve .*certificate signed by unknown authority`, fix: `the certificate of \S+ cannot be checked; the admin sets registry\.`,
	},
	{
		name: "no such command", args: "--container-image=" + tiny + " no-such-command", code: 2,
		cause: `no command no-such-command in the container; PATH is /`, fix: `check its name, or give its path`,
	},
	{
		name: "no such path", args: "--container-image=" + tiny + " /no/such/command", code: 2,
		cause: `/no/such/command is not in the container`, fix: `check the path, or mount the folder`,
	},
	{
		name: "not executable", args: "--container-image=" + tiny + " /etc/os-release", code: 13,
		cause: `/etc/os-release in the container is not an executable file`, fix: `make it executable`,
	},
	{
		name: "command without interpreter", args: "--container-image=" + tiny + " /shared/script", code: 2,
		cause: `/shared/script begins with #!/usr/bin/python3, which is not in the container`, fix: `use an interpreter that the image has`,
	},
	{
		name: "task prolog without interpreter", args: "--task-prolog=/shared/script --container-image=" + tiny + " echo ran",
		cause: `the task prolog /shared/script begins with #!/usr/bin/python3`, fix: `use an interpreter that the image has`,
	},
	{
		name: "mount source missing", args: "--container-mounts=/no/such:/x --container-image=" + tiny + " echo ran",
		cause: `error: mount: source path does not exist: /no/such`, fix: `check the path on the compute node`,
	},
	{
		name: "mount source forbidden", args: "--container-mounts=/root/secret:/x --container-image=" + tiny + " echo ran",
		cause: `error: mount: source path /root/secret: permission denied`, fix: `choose a source that you may read`,
	},
	{
		name: "work directory missing", args: "--container-workdir=/nowhere --container-image=" + tiny + " echo ran",
		cause: `error: working directory /nowhere: no such folder in the container`, fix: `give a folder that exists`,
	},
	{
		name: "work directory is a file", args: "--container-workdir=/etc/os-release --container-image=" + tiny + " echo ran",
		cause: `error: working directory /etc/os-release: no such folder in the container`, fix: `give a folder that exists`,
	},
}

// TestFailures: of what a user asks for and a registry answers nothing drains
// a node or lets a job succeed that did not run. Both ways of mounting differ
// in none of it; TestErrors has some rows in both.
func TestFailures(t *testing.T) {
	s := newSite(t)
	s.startPrivateRegistry(t)
	s.MustRun(t.Context(), "ctl", "root", "sh", "-c",
		`printf '#!/usr/bin/python3\nprint("ran")\n' >/shared/script && chmod 755 /shared/script`)
	t.Run("registry", s.testRegistryGoesDown)
	for _, f := range userFailures {
		t.Run(f.name, func(t *testing.T) {
			s.forget(t)
			nodes := 2
			if f.unpinned {
				nodes = 1
			}
			srun := fmt.Sprintf("timeout 100 srun -N%d --ntasks-per-node=2 ", nodes)
			f.check(t, s.as(t, "alice", srun+f.args), nodes, false)
			s.clean(t)
		})
	}
	t.Run("batch", s.testBatchFailures)
}

// testBatchFailures submits all rows that are not about the command as batch
// jobs, which run side by side.
func (s *site) testBatchFailures(t *testing.T) {
	s.forget(t)
	jobs := map[string]failure{}
	for _, f := range userFailures {
		options, ok := strings.CutSuffix(f.args, " echo ran")
		if !ok || strings.Contains(options, "task-prolog") || strings.Contains(options, "several") {
			continue
		}
		node := "n1" // the only one that gets the image
		if strings.Contains(options, "/faults/") {
			node = nodes[1+len(jobs)%2]
		}
		r := s.as(t, "alice", "sbatch --parsable -w "+node+" -o /shared/%j.out "+options+" --wrap 'echo ran'")
		switch {
		case f.submit:
			f.check(t, r, 1, true)
		case r.Code != 0:
			t.Errorf("%s: %v", f.name, r)
		default:
			jobs[strings.TrimSpace(r.Stdout)] = f
		}
	}
	if len(jobs) < 10 {
		t.Errorf("only %d jobs", len(jobs))
	}
	for id, f := range jobs {
		state, code := s.ended(t, id, 40*time.Second)
		if state != "FAILED" || code == "0:0" {
			t.Errorf("%s: state %s, exit code %s", f.name, state, code)
		}
		out := s.With(t).MustRun(t.Context(), "ctl", "root", "cat", "/shared/"+id+".out")
		f.check(t, cluster.Result{Stderr: out, Code: 1}, 1, true)
	}
	s.clean(t)
}

// testRegistryGoesDown: up at submission, which pins the image, and gone when
// the node wants it, or in the middle of a layer. An image that the node has
// needs no registry.
func (s *site) testRegistryGoesDown(t *testing.T) {
	held := s.submit(t, "-H -w n1 -o /shared/%j.out --container-image="+tiny+" --wrap 'echo ran'")
	stalled := s.submit(t, "-w n1 -o /shared/%j.out "+wrong("layer-stall")+" --wrap 'echo ran'")
	defer s.With(t).Run(t.Context(), "ctl", "root", "scancel", held, stalled)        // or all rows after a failure wait for them
	part := regexp.MustCompile(`0 of 2 layers, [0-9.]+ of [0-9.]+ MB, [0-9.]+ MB/s`) // bytes came
	until(t, 20*time.Second, "a layer is on its way", func() bool {
		return part.MatchString(s.With(t).MustRun(t.Context(), "n1", "root", "berth", "node", "status"))
	})
	s.With(t).Stop("registry")
	s.With(t).MustRun(t.Context(), "ctl", "root", "scontrol", "release", held)
	for id, says := range map[string]string{
		held:    `^berth: error: pull .*10\.97\.0\.1:5000: connect: connection refused\nberth:   nothing listens at`,
		stalled: `^berth: error: pull .*transfer layer 1 of 2: .*(unexpected EOF|reset|refused).*\nberth:   \S+`,
	} {
		state, code := s.ended(t, id, 30*time.Second)
		if state != "FAILED" || code == "0:0" {
			t.Errorf("state %s, exit code %s", state, code)
		}
		out := s.With(t).MustRun(t.Context(), "ctl", "root", "cat", "/shared/"+id+".out")
		if n := times(says, out); n != 1 || times("^ran$", out) != 0 {
			t.Errorf("%d times %s in %q", n, says, out)
		}
	}
	s.clean(t)
	s.registryAgain(t)
	if r := s.as(t, "alice", "srun -N1 -w n1 --container-image="+tiny+" echo ran"); r.Stdout != "ran\n" {
		t.Errorf("the registry is back: %v", r)
	}
	s.With(t).Stop("registry")
	if r := s.as(t, "alice", "srun -N1 -w n1 --container-image="+tiny+" echo ran"); r.Stdout != "ran\n" {
		t.Errorf("the node has the image, the registry is down: %v", r)
	}
	s.clean(t)
	s.registryAgain(t)
}

// registryAgain starts the site's registry after a Stop.
func (s *site) registryAgain(t *testing.T) {
	t.Helper()
	s.With(t).MustRun(t.Context(), "ctl", "root", "rm", "-f", "/run/registry.ready")
	s.With(t).Spawn("registry", cluster.Command{Machine: "ctl", Args: []string{
		"test-registry", "--listen", registry, "--dir", "/var/lib/registry", "--ready-file", "/run/registry.ready",
	}})
	s.With(t).MustRun(t.Context(), "ctl", "root", "timeout", "100", "sh", "-c", "until [ -s /run/registry.ready ]; do sleep 0.05; done")
}
