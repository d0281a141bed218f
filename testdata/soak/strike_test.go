package soak

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/berth-hpc/berth/testdata/cluster"
)

// strike does what a fault says, waits, and mends it. It returns false for a
// fault that found nothing to hit.
func (s *soak) strike(f Fault) (h Happened, hit bool) {
	h = Happened{Fault: f, From: time.Now()}
	defer func() { h.To = time.Now() }()
	k := h.kind()
	if f.Node != "" && k.Kills == nil { // a node is off only while nobody else is at it
		s.at[f.Node].Lock()
		defer s.at[f.Node].Unlock()
	}
	switch {
	case k.Weather != "":
		end := s.sky.change(k.Weather)
		s.wait(f.For)
		end()
		return h, true
	case k.Kills != nil:
		return s.kill(h, k)
	}
	switch k.Name {
	case "fill disk":
		left := f.Draw % (4 << 20)
		s.root(f.Node, fmt.Sprintf(`fallocate -l $(($(stat -f -c '%%a * %%S' %s) - %d)) %s/fill || true`, storeDir, left, storeDir))
		s.wait(f.For)
		s.root(f.Node, "rm -f "+storeDir+"/fill")
	case "flip bits":
		return h, s.damage(f, fmt.Sprintf(`srand(%d); for (1 .. 12) { my $at = int rand $size; seek F, $at, 0; read F, my $c, 1; seek F, $at, 0; print F chr(ord($c) ^ (1 << int rand 8)) }`, f.Draw%1e9))
	case "truncate image":
		return h, s.damage(f, fmt.Sprintf(`truncate F, int($size * %d / 100)`, f.Draw%100))
	case "spoil record":
		return h, s.root(f.Node, fmt.Sprintf("cd %s/images/sha256/%s.* 2>/dev/null && echo '{' >record.json && echo hit", storeDir, s.digests[f.Image])) != ""
	case "reboot":
		s.PowerOff(f.Node)
		s.slurm("update", "nodename="+f.Node, "state=down", "reason=reboot")
		s.wait(f.For)
		s.PowerOn(f.Node)
	case "remove images":
		s.root(f.Node, "berth gc --unused-for 1ns")
	}
	return h, true
}

// wait is for a plan's moments.
func (s *soak) wait(d time.Duration) {
	select {
	case <-time.After(d):
	case <-s.t.Context().Done():
	}
}

// damage changes the file of an image on a node, without a new time of change.
func (s *soak) damage(f Fault, change string) bool {
	return s.root(f.Node, fmt.Sprintf(`perl -e 'my ($file) = glob "%s/images/sha256/%s.*/rootfs.sqfs"; exit if !defined $file || !-e $file; `+
		`open F, "+<:raw", $file or die; my @was = stat F; my $size = -s F; %s; close F; utime $was[8], $was[9], $file; print "hit"'`,
		storeDir, s.digests[f.Image], change)) != ""
}

// found are a machine's processes whose command line a fault is about.
func (s *soak) found(machine string, kills *regexp.Regexp) (all []cluster.Process) {
	for _, p := range s.Processes(machine) {
		if kills.MatchString(commandLine(p)) {
			all = append(all, p)
		}
	}
	return all
}

func commandLine(p cluster.Process) string {
	args := p.Args()
	if len(args) == 0 {
		return ""
	}
	if !strings.HasPrefix(args[0], "slurmstepd:") {
		args[0] = filepath.Base(args[0])
	}
	return strings.Join(args, " ")
}

// kill waits for a victim, a little longer, and kills it. A daemon of Slurm's
// starts again when the fault is over.
func (s *soak) kill(h Happened, k Kind) (Happened, bool) {
	machine := h.Node
	if machine == "" {
		machine = "ctl"
	}
	if k.Pulls {
		s.root(machine, "berth gc --unused-for 1ns")
	}
	end := time.Now().Add(h.For)
	var victims []cluster.Process
	for len(victims) == 0 {
		if time.Now().After(end) {
			return h, false
		}
		s.wait(20 * time.Millisecond)
		victims = s.found(machine, k.Kills)
	}
	victim := victims[h.Draw%uint64(len(victims))]
	h.Job = jobOf(commandLine(victim))
	start, daemon := daemons[k.Name]
	if k.Name == "kill slurmctld" {
		s.saved()
	}
	if !daemon {
		s.wait(time.Duration(h.Draw%300) * time.Millisecond)
	}
	h.From = time.Now()
	if err := victim.Signal(unix.SIGKILL); err != nil {
		s.t.Error(err)
	}
	if k.Name == "kill slurmstepd" {
		// Nobody tells slurmctld before it asks the node, after minutes, and
		// srun waits for it: the user, who sees that nothing comes, cancels.
		s.wait(h.For)
		s.Run(s.t.Context(), "ctl", "root", "scancel", h.Job)
	}
	if daemon {
		s.wait(time.Until(end))
		if h.Node != "" {
			s.at[h.Node].Lock()
			defer s.at[h.Node].Unlock()
		}
		if len(s.found(machine, k.Kills)) == 0 { // or the node was rebooted
			s.root(machine, start)
		}
	}
	return h, true
}

// saved returns right after slurmctld has written its jobs to disk. Killed with
// jobs that it did not write, it gives their numbers away once more, and their
// ends count for the new ones.
func (s *soak) saved() {
	path := filepath.Join(s.Dir, "machines/ctl/root/var/spool/slurmctld/job_state")
	before, _ := os.Stat(path)
	for end := time.Now().Add(10 * time.Second); time.Now().Before(end); s.wait(5 * time.Millisecond) {
		now, err := os.Stat(path)
		if err == nil && (before == nil || !os.SameFile(before, now) || now.ModTime() != before.ModTime()) {
			return
		}
	}
}

// daemons start again by these commands.
var daemons = map[string]string{
	"kill slurmd":    "slurmd",
	"kill slurmctld": "slurmctld",
	"kill munged":    "setpriv --reuid munge --regid munge --clear-groups munged --force --key-file /var/lib/munge/key",
}

var jobInArgs = regexp.MustCompile(`/jobs/([0-9]+)/prepare/|^slurmstepd: \[([0-9]+)\.|^sh /prove (\S+) `)

// jobOf is the job that a command line is about, as far as it says so.
func jobOf(command string) string {
	m := jobInArgs.FindStringSubmatch(command)
	if m == nil {
		return ""
	}
	return strings.Join(slices.DeleteFunc(m[1:], func(s string) bool { return s == "" }), "")
}
