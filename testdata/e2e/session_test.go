package e2e

import (
	"encoding/base64"
	"fmt"
	"strings"
	"testing"
	"time"
)

// credentialHelper is a program of alice's that docker's configuration names.
// It notes where it was asked; what it does in a job is the job's own word.
const credentialHelper = `#!/bin/sh
[ "$1" = get ] || exit 1
echo "node ${SLURM_NODEID:-none}" >>~/asked
password=` + alicePassword + `
[ -z "$SLURM_NODEID" ] || case $HELPER in
hang) echo $$ >~/hangs.new; mv ~/hangs.new ~/hangs; exec sleep 300 ;;
wrong) password=wr0ng ;;
rubbish) echo wr0ng-rubbish; exit 0 ;;
fail) exit 3 ;;
esac
echo "{\"ServerURL\": \"x\", \"Username\": \"alice\", \"Secret\": \"$password\"}"
`

// withHelper has alice's login in a helper program and nowhere else.
func (s *site) withHelper(t *testing.T) {
	t.Helper()
	text := base64.StdEncoding.EncodeToString([]byte(credentialHelper))
	config := fmt.Sprintf(`{"credHelpers": {"%s": "site"}}`, closed)
	if r := s.as(t, "alice", "mkdir -p bin .docker && echo "+text+" | base64 -d >bin/docker-credential-site && chmod 755 bin/docker-credential-site && echo '"+config+"' >.docker/config.json"); r.Code != 0 {
		t.Fatal(r)
	}
}

// asked is how often the helper was asked, by where it ran; it begins anew.
func (s *site) asked(t *testing.T) map[string]int {
	t.Helper()
	asked := map[string]int{}
	for line := range strings.Lines(s.as(t, "alice", "cat asked; rm -f asked").Stdout) {
		asked[strings.TrimSpace(line)]++
	}
	return asked
}

const withBin = "export PATH=~/bin:$PATH; "

// A job's own session knows logins that no node finds: in helper programs, and
// by its variables. One task on each node is asked for them, once; nothing of
// them stays on the node. What goes wrong there is said in words, and scancel
// ends it.
func TestLoginsOfTheSession(t *testing.T) {
	s := closedSite(t, withConfig("[login]\nhelper_timeout = \"60s\"\n"))
	s.withHelper(t)
	for _, test := range []struct {
		name string
		run  func(*testing.T, *site)
	}{
		{"a credential helper", testSessionHelper},
		{"a variable of the job", testSessionVariable},
		{"what goes wrong", testSessionFailures},
		{"a helper that hangs", testSessionHangs},
	} {
		t.Run(test.name, func(t *testing.T) {
			s.forget(t)
			s.asked(t)
			test.run(t, s)
			s.clean(t)
		})
	}
}

func testSessionHelper(t *testing.T, s *site) {
	r := s.as(t, "alice", withBin+"srun -N2 -w n1,n2 --ntasks-per-node=3 --overcommit --container-image="+alicesImage+" echo ran")
	if times("^ran$", r.Stdout) != 6 {
		t.Fatal(r)
	}
	if asked := s.asked(t); asked["node 0"] != 1 || asked["node 1"] != 1 {
		t.Errorf("asked %v", asked)
	}
	for _, node := range []string{"n1", "n2"} {
		s.secretIsNowhere(t, node)
	}
	r = s.as(t, "alice", withBin+"srun -N1 -w n1 --container-image="+alicesImage+" echo ran")
	if asked := s.asked(t); times("^ran$", r.Stdout) != 1 || asked["node 0"] != 0 {
		t.Errorf("with a grant: asked %v: %v", asked, r)
	}
}

func testSessionVariable(t *testing.T, s *site) {
	auth := base64.StdEncoding.EncodeToString([]byte("alice:" + alicePassword))
	text := fmt.Sprintf(`{"auths": {"%s": {"auth": "%s"}}}`, closed, auth)
	r := s.as(t, "alice", "umask 077; echo '"+text+"' >elsewhere.json; mv .docker/config.json .docker/away; REGISTRY_AUTH_FILE=$HOME/elsewhere.json srun -w n3 --container-image="+alicesImage+" echo ran; mv .docker/away .docker/config.json")
	if times("^ran$", r.Stdout) != 1 {
		t.Errorf("%v", r)
	}
}

// The task is told once, and the registry's own answer is among the words.
func testSessionFailures(t *testing.T, s *site) {
	for helper, want := range map[string]string{
		"wrong":   "answered 401 Unauthorized.* to your login \\(alice, from docker-credential-site",
		"rubbish": "answered 401 Unauthorized.*your job's session gave no login: ask docker-credential-site: its answer is not JSON",
		"fail":    "answered 401 Unauthorized.*your job's session gave no login: ask docker-credential-site: exit status 3",
	} {
		r := s.as(t, "alice", withBin+"HELPER="+helper+" srun -w n1 -n3 --overcommit --container-image="+alicesImage+" echo ran")
		if r.Code == 0 || times("^berth: error: .*"+want, r.Stderr) != 1 || strings.Contains(r.Stderr, "wr0ng") || times("^ran$", r.Stdout) != 0 {
			t.Errorf("%s: %v", helper, r)
		}
		if asked := s.asked(t); asked["node 0"] != 1 {
			t.Errorf("%s: asked %v", helper, asked)
		}
	}
	r := s.as(t, "alice", "srun -w n2 --container-image="+alicesImage+" echo ran") // nothing in the PATH
	if r.Code == 0 || times("^berth: error: .*docker-credential-site: there is no such program in your PATH", r.Stderr) != 1 {
		t.Errorf("no helper: %v", r)
	}
}

func testSessionHangs(t *testing.T, s *site) {
	start := time.Now()
	r := s.as(t, "alice", withBin+"HELPER=hang srun -w n1 --container-image="+alicesImage+" echo ran")
	if took := time.Since(start); r.Code == 0 || took > 40*time.Second || times("^berth: error: .*credential gave no answer within 20 s", r.Stderr) != 1 {
		t.Errorf("took %v: %v", took, r)
	}
	s.helperIsGone(t)
	r = s.as(t, "alice", "rm -f hangs; "+withBin+"HELPER=hang sbatch --parsable -w n1 -o /dev/null --container-image="+alicesImage+" --wrap 'echo ran'")
	id := strings.TrimSpace(r.Stdout)
	until(t, 30*time.Second, "the helper hangs", func() bool { return s.as(t, "alice", "test -e hangs").Code == 0 })
	s.as(t, "alice", "scancel "+id)
	if state, _ := s.ended(t, id, 15*time.Second); state != "CANCELLED" {
		t.Errorf("the job is %s", state)
	}
	s.helperIsGone(t)
}

// helperIsGone wants no process of alice's helper program on n1.
func (s *site) helperIsGone(t *testing.T) {
	t.Helper()
	until(t, 10*time.Second, "the helper program is gone", func() bool {
		return s.With(t).Run(t.Context(), "n1", "root", "sh", "-c", "pgrep -u alice -x sleep || pgrep -u alice -f '[c]redential'").Code != 0
	})
}
