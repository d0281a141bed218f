package e2e

import (
	"encoding/base64"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/berth-hpc/berth/testdata/cluster"
)

// closed is a registry in which alice/ is alice's alone.
const (
	closed        = "10.97.0.1:5001"
	alicePassword = "al1ce-s3cret"
	bobPassword   = "b0b-s3cret"
	usersOfClosed = "alice:" + alicePassword + "\\nbob:" + bobPassword + "\\n"
	alicesImage   = closed + "/alice/tiny:1"
)

func closedSite(t *testing.T, options ...option) *site {
	t.Helper()
	s := newSite(t, append([]option{withConfig(fmt.Sprintf("[registry.%q]\ninsecure = true\n[container]\n", closed))}, options...)...)
	s.startClosed("open", "")
	if r := s.as(t, "alice", "berth push "+tiny+" "+alicesImage); r.Code != 0 {
		t.Fatal(r)
	}
	s.With(t).Stop("open")
	s.startClosed("closed", usersOfClosed)
	s.logIn(t, "alice", alicePassword)
	s.logIn(t, "bob", bobPassword)
	return s
}

// startClosed starts the closed registry as name.
func (s *site) startClosed(name, users string) {
	s.t.Helper()
	args := []string{"test-registry", "--listen", closed, "--dir", "/var/lib/closed", "--ready-file", "/run/" + name + ".ready"}
	if users != "" {
		s.MustRun(s.t.Context(), "ctl", "root", "sh", "-c", "printf '"+users+"' >/run/users && chmod 600 /run/users")
		args = append(args, "--users-file", "/run/users")
	}
	s.Spawn(name, cluster.Command{Machine: "ctl", Args: args})
	s.MustRun(s.t.Context(), "ctl", "root", "timeout", "100", "sh", "-c", "until [ -s /run/"+name+".ready ]; do sleep 0.05; done")
}

// logIn writes what docker login writes.
func (s *site) logIn(t *testing.T, user, password string) {
	t.Helper()
	auth := base64.StdEncoding.EncodeToString([]byte(user + ":" + password))
	text := fmt.Sprintf(`{"auths": {"%s": {"auth": "%s"}}}`, closed, auth)
	if r := s.as(t, user, "mkdir -p -m 700 .docker && umask 077 && echo '"+text+"' >.docker/config.json"); r.Code != 0 {
		t.Fatal(r)
	}
}

// Alice's private image runs on two nodes by the login in her home; bob gets the
// registry's answer, also where a node is asked behind the back of sbatch, and
// nothing of it by her job, its processes, or the store. Her password is nowhere
// on the node, and the nodes stay up.
func TestPrivateImages(t *testing.T) {
	s := closedSite(t)
	r := s.as(t, "alice", "srun -N2 -w n1,n2 --container-image="+alicesImage+" echo ran")
	if times("^ran$", r.Stdout) != 2 {
		t.Fatalf("%v", r)
	}
	if r := s.as(t, "bob", "srun -N1 -w n1 --container-image="+alicesImage+" echo ran"); r.Code == 0 || !strings.Contains(r.Stderr, "resolve") {
		t.Errorf("bob at submission: %v", r)
	}
	s.ownMirror(t)
	s.With(t).Stop("closed") // so that submission lets him through
	r = s.as(t, "bob", "sbatch --parsable -H -w n1 -o /shared/%j.out --container-image="+alicesImage+" --wrap 'echo ran'")
	s.startClosed("again", usersOfClosed)
	bobs := strings.TrimSpace(r.Stdout)
	s.With(t).MustRun(t.Context(), "ctl", "root", "scontrol", "release", bobs)
	state, _ := s.ended(t, bobs, 30*time.Second)
	out := s.With(t).MustRun(t.Context(), "ctl", "root", "cat", "/shared/"+bobs+".out")
	if state != "FAILED" || strings.Contains(out, "ran") || !strings.Contains(out, "answered 403 Forbidden") ||
		!strings.Contains(out, "to your login (bob, from /home/bob/.docker/config.json)") {
		t.Errorf("bob on the node: %s: %s", state, out)
	}
	id := s.submit(t, "-w n1 -o /shared/%j.out --container-image="+alicesImage+" --wrap 'echo up; sleep 60'")
	until(t, 30*time.Second, "alice's job runs", func() bool {
		return strings.Contains(s.With(t).MustRun(t.Context(), "ctl", "root", "sh", "-c", "cat /shared/"+id+".out 2>&1 || true"), "up")
	})
	pid := strings.TrimSpace(s.With(t).MustRun(t.Context(), "n1", "root", "pgrep", "-u", "alice", "-n", "sleep"))
	for name, script := range map[string]string{
		"her process":    "ls /proc/" + pid + "/root/bin",
		"the store":      "ls /var/lib/berth/images/sha256/*/",
		"its grants":     "ls /var/lib/berth/grants",
		"the run folder": "ls /run/berth/jobs",
	} {
		if r := s.With(t).Run(t.Context(), "n1", "bob", "sh", "-c", script); r.Code == 0 || !strings.Contains(r.Stderr, "ermission denied") {
			t.Errorf("bob sees %s: %v", name, r)
		}
	}
	if r := s.as(t, "bob", "timeout 100 srun --jobid="+id+" --overlap true"); r.Code == 0 {
		t.Errorf("bob in alice's job: %v", r)
	}
	s.secretIsNowhere(t, "n1")
	s.With(t).MustRun(t.Context(), "ctl", "root", "scancel", id)
	s.ended(t, id, 30*time.Second)
	s.clean(t)
}

// ownMirror has bob say, in settings of his own, that another registry is a
// mirror of the closed one. It has the image, so that submission pins its digest;
// the node, which has it from alice, asks whom the site names.
func (s *site) ownMirror(t *testing.T) {
	t.Helper()
	setting := fmt.Sprintf("[registry.%q]\nmirrors = [%q]\n", closed, registry+"/stolen")
	script := "berth push " + tiny + " " + registry + "/stolen/alice/tiny:1 && mkdir -p .config/berth && echo " +
		base64.StdEncoding.EncodeToString([]byte(setting)) + " | base64 -d >.config/berth/berth.toml && berth resolve " + alicesImage
	if r := s.as(t, "bob", script); r.Code != 0 || times("^sha256:", r.Stdout) != 2 {
		t.Fatalf("bob's mirror does not work: %v", r)
	}
	r := s.as(t, "bob", "srun -N1 -w n1 --container-image="+alicesImage+" echo ran")
	if r.Code == 0 || times("^ran$", r.Stdout) != 0 || times("^berth: error: .*answered 403 Forbidden", r.Stderr) != 1 {
		t.Errorf("bob with a mirror of his own: %v", r)
	}
	s.as(t, "bob", "rm -r .config/berth .cache/berth")
}

// secretIsNowhere looks for alice's password on a node: in Berth's files, logs,
// core dumps, and what processes show.
func (s *site) secretIsNowhere(t *testing.T, node string) {
	t.Helper()
	for _, secret := range []string{alicePassword, base64.StdEncoding.EncodeToString([]byte("alice:" + alicePassword))} {
		// Encoded, so that the search does not find itself.
		search := "echo " + base64.StdEncoding.EncodeToString([]byte(secret)) + " | base64 -d | grep -rlsF -f /dev/stdin "
		found := s.With(t).MustRun(t.Context(), node, "root", "sh", "-c", search+
			"/run/berth /var/lib/berth /var/log /var/spool /core* /tmp /proc/[0-9]*/environ /proc/[0-9]*/cmdline || true")
		if found != "" {
			t.Errorf("the password is in %s", found)
		}
	}
	if found := s.With(t).MustRun(t.Context(), node, "root", "grep", "-rlsF", closed, "/home/alice/.docker"); found == "" {
		t.Error("the search finds nothing at all")
	}
}
