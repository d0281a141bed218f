package e2e

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/berth-hpc/berth/testdata/cluster"
)

var (
	residueJobs      = flag.Int("residue.jobs", 200, "how many jobs TestResidue runs, bare and then in an image")
	residueContainer = flag.Bool("residue.jobcontainer", false, "give each of them a /tmp of its own, by job_container/tmpfs")
)

// A crowd is several users' scripts, each of which starts its jobs one after
// the other without waiting, and ends a third of them.
type crowd struct {
	jobs   int
	image  string // "" for bare jobs
	random *rand.Rand
}

// script is one user's share. Every line is one job.
func (c *crowd) script(user, share int) string {
	var b strings.Builder
	b.WriteString("cd ~\n")
	for i := range share {
		fmt.Fprintf(&b, "( %s ) >>log 2>&1 &\nsleep %.2f\n", c.job(user+i), c.random.Float64()*0.4)
	}
	b.WriteString("wait\n")
	return b.String()
}

// job is a shell command that runs one job to its end, or ends it.
func (c *crowd) job(i int) string {
	options := fmt.Sprintf("-N%d", 1+c.random.IntN(3))
	if c.image != "" {
		options += " --container-image=" + c.image
	}
	moment := fmt.Sprintf("%.2f", c.random.Float64()*1.5)
	const work = "sleep 0.$((RANDOM % 10))"
	batch := "id=$(sbatch --parsable -o /dev/null " + options + " --wrap '" + work + "')"
	if i%3 != 0 {
		if c.random.IntN(2) == 0 {
			return batch
		}
		return "srun " + options + " sh -c '" + work + "'"
	}
	switch c.random.IntN(4) {
	case 0:
		return batch + "; sleep " + moment + "; scancel $id"
	case 1:
		return batch + "; sleep " + moment + "; scancel -s KILL $id; scancel $id"
	case 2: // srun itself goes without a word: Slurm keeps its job, and the CPUs
		name := fmt.Sprintf(" -J lost%d ", i)
		return "timeout -s KILL " + moment + " srun" + name + options + " sleep 3; scancel -u $USER" + strings.Replace(name, "-J", "-n", 1)
	default:
		return "srun " + options + " sh -c 'kill -9 $$'"
	}
}

// run has all users do their share, and waits until the cluster is idle.
func (c *crowd) run(t *testing.T, s *site) {
	t.Helper()
	users := []string{"alice", "bob", "carol"}
	var wait sync.WaitGroup
	for i, user := range users {
		script := c.script(i, c.jobs/len(users))
		wait.Go(func() {
			r := s.With(t).Do(t.Context(), cluster.Command{
				Machine: "ctl", User: user, Args: []string{"bash", "-s"}, Stdin: strings.NewReader(script), Timeout: 3 * time.Minute,
			})
			if r.Code != 0 {
				t.Errorf("%s: %v", user, r)
			}
		})
	}
	wait.Wait()
	s.With(t).WaitIdle()
}

// outcomes asserts that jobs ran, and that others were ended.
func (s *site) outcomes(t *testing.T) {
	t.Helper()
	n := map[string]int{}
	out := s.With(t).MustRun(t.Context(), "ctl", "root", "scontrol", "-o", "show", "job")
	for _, m := range regexp.MustCompile(`JobState=(\w+)`).FindAllStringSubmatch(out, -1) {
		n[m[1]]++
	}
	t.Log(n)
	all := 2 * *residueJobs
	if n["COMPLETED"] < all/2 || n["COMPLETED"] > all*9/10 || n["CANCELLED"] < all/30 || n["FAILED"] < all/30 {
		t.Errorf("of %d jobs: %v", all, n)
	}
}

// TestResidue runs hundreds of jobs, a third of which are cancelled or killed
// at random moments, and compares the nodes before and after. What Slurm's
// daemons grow by is compared with as many bare jobs.
func TestResidue(t *testing.T) {
	var options []option
	if *residueContainer {
		options = append(options, withJobContainer, withConf("PrologFlags=Contain"))
	}
	s := newSite(t, options...)
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d, %d jobs", seed, *residueJobs)
	random := rand.New(rand.NewPCG(seed, 0))
	machines := []string{"ctl", "n1", "n2", "n3"}

	// From here on the image, the pinned namespace and the logs are there.
	if r := s.as(t, "alice", "srun -N3 --container-image="+tiny+" true && srun -N3 true"); r.Code != 0 {
		t.Fatal(r)
	}
	fresh := s.usage(t)
	bare := &crowd{jobs: *residueJobs, random: random}
	bare.run(t, s)
	before, bareUsage := map[string]residue{}, s.usage(t)
	for _, m := range machines {
		before[m] = s.residueOf(t, m)
	}

	inImage := &crowd{jobs: *residueJobs, random: random, image: tiny}
	done := make(chan struct{})
	go func() { defer close(done); s.linger(t) }()
	inImage.run(t, s)
	<-done
	s.lingers(t)
	s.outcomes(t)
	for _, m := range machines {
		if more := s.settled(t, m, before[m], nil); len(more) > 0 {
			t.Errorf("%s has more than before:\n%s", m, strings.Join(more, "\n"))
		}
	}
	s.compareUsage(t, fresh, bareUsage, s.usage(t))
	s.idle(t)
}

// settled gives what ends by itself ten seconds, and returns the rest, but for
// what is expected.
func (s *site) settled(t *testing.T, machine string, before residue, expected *regexp.Regexp) []string {
	t.Helper()
	deadline := time.Now().Add(10 * time.Second)
	for {
		more := s.residueOf(t, machine).since(before)
		if expected != nil {
			more = slices.DeleteFunc(more, expected.MatchString)
		}
		if len(more) == 0 || time.Now().After(deadline) {
			return more
		}
	}
}

// lingering is the name of the processes that linger leaves.
const lingering = "lingering"

// linger leaves a user's mount namespaces on n1, made while an image is
// mounted there.
func (s *site) linger(t *testing.T) {
	s.With(t).MustRun(t.Context(), "n1", "root", "install", "-m", "755", "/bin/sleep", "/var/tmp/"+lingering)
	for i := range 3 {
		until(t, time.Minute, "an image is mounted on n1", func() bool {
			r := residue{}
			addLoops(t, r, filepath.Join("/proc", s.With(t).PID("n1"), "root/var/lib/berth"))
			return len(r) > 0
		})
		s.Spawn(fmt.Sprint(lingering, i), cluster.Command{Machine: "n1", User: "carol", Args: []string{"unshare", "-Urm", "/var/tmp/" + lingering, "600"}})
	}
}

// lingers asserts that those namespaces are there and hold no image.
func (s *site) lingers(t *testing.T) {
	t.Helper()
	n := 0
	for _, p := range s.With(t).Processes("n1") {
		if p.Name != lingering {
			continue
		}
		n++
		mounts, err := os.ReadFile(p.Dir + "/mountinfo")
		if err != nil || strings.Contains(string(mounts), "squashfs") {
			t.Errorf("a user's namespace: %v\n%s", err, mounts)
		}
	}
	if n != 3 {
		t.Errorf("%d lingering namespaces", n)
	}
}

func (s *site) compareUsage(t *testing.T, fresh, bare, after map[string]usage) {
	t.Helper()
	for name, u := range after {
		b, f := bare[name], fresh[name]
		t.Logf("%s: descriptors %d, %d, %d; kB %d, %d, %d (at first, after bare jobs, after jobs in an image)", name, f.fds, b.fds, u.fds, f.rss, b.rss, u.rss)
		if more := u.fds - max(f.fds, b.fds); more > 2 {
			t.Errorf("%s has %d descriptors more than after bare jobs", name, more)
		}
		if more := u.rss - b.rss; more > 2048+2*max(0, b.rss-f.rss) {
			t.Errorf("%s has %d kB more than after bare jobs, which added %d", name, more, b.rss-f.rss)
		}
	}
}
