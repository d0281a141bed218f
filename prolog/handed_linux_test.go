package prolog

import (
	"encoding/base64"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/berth-hpc/berth/fault"
	"github.com/berth-hpc/berth/imagecache/credentials"
	"github.com/berth-hpc/berth/prolog/jobstate"
)

// answerOf is what `berth credential` says in a job's session.
func answerOf(t *testing.T, login credentials.Login, failure error) string {
	t.Helper()
	var b strings.Builder
	must(t, credentials.WriteAnswer(&b, login, failure))
	return b.String()
}

func alicesAnswer(t *testing.T, password string) string {
	return answerOf(t, credentials.NewLogin("alice", credentials.NewSecret(password), "docker-credential-x"), nil)
}

// wants has n prepare r, which has to end with a login being wanted.
func (n *node) wants(r jobstate.Request) *jobstate.LoginWantedError {
	n.t.Helper()
	n.prepare(r)
	_, err := n.outcome(r)
	wanted, ok := errors.AsType[*jobstate.LoginWantedError](err)
	if !ok {
		n.t.Fatalf("got %v\n%s", err, n.log(r))
	}
	return wanted
}

// again hands a login over, as the helper of a step does.
func (n *node) again(r jobstate.Request, login string) {
	n.t.Helper()
	_, err := jobstate.Again(n.t.Context(), n.cfg.Command, n.cfg.RunDir, r, login)
	must(n.t, err)
}

// shown is a failure as a user sees it.
func shown(err error) string {
	return fmt.Sprintf("%v (%v): %s", err, fault.Of(err), fault.Remedy(err))
}

// A login that only the job's session knows gets the image, and with it the
// rights that any login gives, and no more; nobody's home has to hold it.
func TestLoginFromTheSession(t *testing.T) {
	if !privateMounts(t) {
		return
	}
	bothSchemes(t, func(t *testing.T, reg *closedRegistry) {
		n := newNode(t)
		image, digest := reg.push(t, "alice/tool:1", "alice's")
		reg.users.Lock()
		n.people()
		r := jobOf(alice, 1, image, "")
		wanted := n.wants(r)
		if wanted.Registry != reg.host || wanted.Repository != "alice/tool" || wanted.Tried != "" {
			t.Errorf("wanted: %+v", wanted.LoginWanted)
		}
		n.again(r, alicesAnswer(t, alicePassword))
		if got := n.read(n.ready(r).Mount, "hello"); got != "alice's" {
			t.Errorf("the image says %q", got)
		}
		if mode := modeOf(t, n.published()[0]); mode != 0o700 {
			t.Errorf("the image's folder has mode %v", mode)
		}
		before := reg.requests.Load()
		n.runs(jobOf(alice, 2, image, digest), "alice's")
		if made := reg.requests.Load() - before; made != 0 {
			t.Errorf("%d requests while the grant holds", made)
		}
		n.wants(jobOf(bob, 3, image, digest))
		n.again(jobOf(bob, 3, image, digest), answerOf(t, credentials.NewLogin("bob", credentials.NewSecret(bobPassord), "x"), nil))
		if ready, err := n.outcome(jobOf(bob, 3, image, digest)); err == nil || !strings.Contains(err.Error(), "403 Forbidden") {
			t.Errorf("bob: %v, %v", ready, err)
		}
	})
}

// What a session says that is no good is the failure, once: nobody is asked
// again, and the registry hears of a wrong password one time.
func TestLoginFromTheSessionIsNoGood(t *testing.T) {
	if !privateMounts(t) {
		return
	}
	n, reg := newNode(t), newClosedRegistry(t, true)
	image, _ := reg.push(t, "alice/tool:1", "alice's")
	reg.users.Lock()
	n.people()
	for i, tt := range []struct {
		name, answer string
		want         []string
	}{
		{"wrong password", alicesAnswer(t, "wr0ng-s3cret"), []string{"401 Unauthorized", "to your login (alice, from docker-credential-x)"}},
		{"a failure", answerOf(t, credentials.Login{}, &fault.Error{Op: "ask docker-credential-x", Err: errors.New("no answer within 5s")}), []string{"401 Unauthorized", "your job's session: ask docker-credential-x: no answer within 5s"}},
		{"none", answerOf(t, credentials.Login{}, nil), []string{"401 Unauthorized", "berth login " + reg.host}},
		{"rubbish", "wr0ng-s3cret\x1b[31m", []string{"401 Unauthorized", "its answer is not JSON"}},
		{"another field", `{"login": {"name": "a\u001b[31m", "password": "wr0ng-s3cret", "source": "a\nb"}}`, []string{"401 Unauthorized", "to your login (a [31m, from a b)"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := jobOf(alice, uint32(1+i), image, "")
			n.wants(r)
			n.again(r, tt.answer)
			_, err := n.outcome(r)
			got := shown(err)
			for _, want := range tt.want {
				if !strings.Contains(got, want) {
					t.Errorf("%s, want %s", got, want)
				}
			}
			if wanted := (*jobstate.LoginWantedError)(nil); err == nil || errors.As(err, &wanted) {
				t.Errorf("asks again: %v", err)
			}
			if strings.Contains(got, "s3cret") || strings.Contains(got, "\x1b") {
				t.Errorf("shows %q", got)
			}
			n.wantHidden([]string{"wr0ng-s3cret"})
			before := reg.requests.Load()
			n.again(r, tt.answer)
			n.prepare(r)
			if made := reg.requests.Load() - before; made != 0 {
				t.Errorf("%d requests for a failure that stands", made)
			}
		})
	}
}

// A login in the user's files that the registry does not take may be an old
// one: the session is asked, and told which it was.
func TestStaleLoginInAFile(t *testing.T) {
	if !privateMounts(t) {
		return
	}
	n, reg := newNode(t), newClosedRegistry(t, false)
	image, _ := reg.push(t, "alice/tool:1", "alice's")
	reg.users.Lock()
	n.people(reg.host)
	n.logIn(n.cfg.Homes[alice], alice, "alice", "0ld-s3cret", reg.host)
	r := jobOf(alice, 1, image, "")
	wanted := n.wants(r)
	if want := "alice, from " + filepath.Join(n.cfg.Homes[alice], ".docker", "config.json"); wanted.Tried != want {
		t.Errorf("tried %q, want %q", wanted.Tried, want)
	}
	n.again(r, alicesAnswer(t, alicePassword))
	n.ready(r)
}

// Nobody asks a job for a login whom that cannot help: of root's jobs, for
// images that there are not, while a registry is down.
func TestNoLoginIsWanted(t *testing.T) {
	if !privateMounts(t) {
		return
	}
	n, reg := newNode(t), newClosedRegistry(t, false)
	image, _ := reg.push(t, "alice/tool:1", "alice's")
	reg.users.Lock()
	n.people(reg.host)
	plain := func(what string, r jobstate.Request) {
		t.Helper()
		n.prepare(r)
		_, err := n.outcome(r)
		if wanted := (*jobstate.LoginWantedError)(nil); err == nil || errors.As(err, &wanted) {
			t.Errorf("%s: %v", what, err)
		}
	}
	plain("root's job", jobOf(0, 1, image, ""))
	reg.down.Store(true)
	plain("a registry that is down", jobOf(alice, 2, image, ""))
}

// `berth node prepare` is closed to others before it reads what may be a login.
func TestPrepareIsGuarded(t *testing.T) {
	if !privateMounts(t) {
		return
	}
	n := newNode(t)
	args := n.cfg.command("node", "prepare")
	cmd := exec.CommandContext(t.Context(), "sh", append([]string{"-c", `ulimit -c unlimited && exec "$0" "$@"`}, args...)...)
	in, err := cmd.StdinPipe()
	must(t, err)
	must(t, cmd.Start())
	eventually(t, "only root may look into it", func() bool { return isGuarded(fmt.Sprintf("/proc/%d", cmd.Process.Pid)) })
	must(t, in.Close())
	if cmd.Wait() == nil {
		t.Error("an empty request is taken")
	}
}

// While a login of the session's is used it shows nowhere, and no process that
// has it, or had it on its way, dumps a core.
func TestSecretsOfTheSessionStayHidden(t *testing.T) {
	if !privateMounts(t) {
		return
	}
	bothSchemes(t, func(t *testing.T, reg *closedRegistry) {
		n := newNode(t)
		image, _ := reg.push(t, "alice/tool:1", "alice's")
		reg.users.Lock()
		n.people()
		r := jobOf(alice, 1, image, "")
		n.wants(r)
		reg.stall(isBlob)
		n.again(r, alicesAnswer(t, alicePassword))
		eventually(t, "the pull begins", func() bool { return reg.getBlobs.Load() > 0 })
		secrets := append(reg.users.Issued(), alicePassword, base64.StdEncoding.EncodeToString([]byte("alice:"+alicePassword)))
		n.wantHidden(secrets)
		guarded := n.pids("worker", "fetch")
		if len(guarded) < 2 {
			t.Errorf("processes: %q", guarded)
		}
		for _, pid := range guarded {
			if !isGuarded("/proc/" + pid) {
				t.Errorf("process %s can be dumped or traced", pid)
			}
		}
		reg.answer()
		n.ready(r)
		n.wantHidden(secrets)
	})
}

// Of two steps that bring a login at once one prepares, and both get the image.
func TestTwoStepsBringALogin(t *testing.T) {
	if !privateMounts(t) {
		return
	}
	n, reg := newNode(t), newClosedRegistry(t, false)
	image, _ := reg.push(t, "alice/tool:1", "alice's")
	reg.users.Lock()
	n.people()
	r := jobOf(alice, 1, image, "")
	n.wants(r)
	done := make(chan error, 2)
	for range 2 {
		go func() {
			_, err := jobstate.Again(t.Context(), n.cfg.Command, n.cfg.RunDir, r, alicesAnswer(t, alicePassword))
			if err == nil {
				_, err = n.folder(r).Wait(t.Context(), nil)
			}
			done <- err
		}()
	}
	for range 2 {
		select {
		case err := <-done:
			must(t, err)
		case <-time.After(30 * time.Second):
			t.Fatal("no outcome")
		}
	}
}

// A mirror is shown no login of a user's, unless the site says that it takes
// those; and what it gives for one is as private as what the registry gives.
func TestLoginsAndMirrors(t *testing.T) {
	if !privateMounts(t) {
		return
	}
	for name, takes := range map[string]bool{"not set": false, "takes logins": true} {
		t.Run(name, func(t *testing.T) {
			n, reg, mirror := newNode(t), newClosedRegistry(t, false), newClosedRegistry(t, false)
			image, _ := reg.push(t, "alice/tool:1", "alice's")
			mirror.push(t, "alice/tool:1", "alice's")
			reg.users.Lock()
			mirror.users.Lock()
			n.people(reg.host)
			n.configure(func(c *testConfig) { c.Mirrors = map[string]testMirror{reg.host: {mirror.host, takes}} })
			n.runs(jobOf(alice, 1, image, ""), "alice's")
			if took := mirror.getBlobs.Load() > reg.getBlobs.Load(); took != takes {
				t.Errorf("the mirror gave the layers: %v", took)
			}
			if mode := modeOf(t, n.published()[0]); mode != 0o700 {
				t.Errorf("the image's folder has mode %v", mode)
			}
			n.refuses(jobOf(bob, 2, image, ""))
		})
	}
}
