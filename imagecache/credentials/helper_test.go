package credentials

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// helpers writes scripts docker-credential-NAME and returns what starts them.
func helpers(t *testing.T, scripts map[string]string) *Helpers {
	t.Helper()
	dir := t.TempDir()
	for name, script := range scripts {
		path := filepath.Join(dir, "docker-credential-"+name)
		if err := os.WriteFile(path, []byte("#!/bin/sh\n"+script), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	return &Helpers{Path: dir, Environ: []string{"PATH=/usr/bin:/bin", "DIR=" + dir}, Limit: 10 * time.Second}
}

const answers = `read host; [ "$1" = get ] || exit 9; echo "{\"ServerURL\":\"$host\",\"Username\":\"me\",\"Secret\":\"of $host\"}"`

func TestHelpers(t *testing.T) {
	long := fmt.Sprintf("head -c %d /dev/zero | tr '\\0' x", 4<<20)
	for _, tt := range []struct {
		name, script string
		limit        time.Duration
		want, err    string
	}{
		{name: "answers", script: answers, want: "me:of quay.io:"},
		{name: "a token", script: `echo '{"Username":"<token>","Secret":"t"}'`, want: "::t"},
		{name: "has nothing", script: `echo "credentials not found in native keychain"; exit 1`, want: "::"},
		{name: "leaves an agent with its output open", script: "sleep 60 & echo $! >$DIR/agent\n" + answers, want: "me:of quay.io:"},
		{name: "hangs", script: "sleep 60 & echo $! >$DIR/child; sleep 60", limit: 300 * time.Millisecond, err: "no answer within 300ms"},
		{name: "garbage", script: "echo " + secretText, err: "its answer is not JSON"},
		{name: "megabytes", script: long, err: "its answer is longer than 65536 bytes"},
		{name: "megabytes and hangs", script: long + "; sleep 60", err: "its answer is longer than 65536 bytes"},
		{name: "fails", script: "echo " + secretText + "; echo " + secretText + " >&2; exit 3", err: "exit status 3"},
		{name: "dies", script: "kill -9 $$", err: "a signal ended it"},
		{name: "has a foreign environment", script: `[ -z "$HOME$TEST_LEAK" ] && ` + answers, want: "me:of quay.io:"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Setenv("TEST_LEAK", "x")
			h := helpers(t, map[string]string{"x": tt.script})
			if tt.limit > 0 {
				h.Limit = tt.limit
			}
			k := newHome(t, map[string]string{dockerFile: `{"credsStore": "x"}`}).keychain()
			k.Helpers = h
			start := time.Now()
			l, err := k.Login(t.Context(), Target{Registry: "quay.io", Repository: "a/b"})
			if took := time.Since(start); took > 8*time.Second {
				t.Errorf("took %v", took)
			}
			r := l.Reveal()
			if got := r.Name + ":" + r.Password + ":" + r.IdentityToken; tt.err == "" && (err != nil || got != tt.want) {
				t.Errorf("got %q, %v", got, err)
			}
			if tt.err != "" && (err == nil || !strings.Contains(err.Error(), tt.err) || strings.Contains(err.Error(), secretText)) {
				t.Errorf("got %v", err)
			}
			checkDead(t, h, "child")
			endAgent(t, h)
		})
	}
}

func pidIn(t *testing.T, h *Helpers, name string) int {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(h.Path, name))
	if err != nil {
		return 0
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil {
		t.Fatal(err)
	}
	return pid
}

// checkDead waits until the process is gone that a helper left its number of.
func checkDead(t *testing.T, h *Helpers, name string) {
	t.Helper()
	pid := pidIn(t, h, name)
	if pid == 0 {
		return
	}
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	deadline := time.After(5 * time.Second)
	for state := processState(pid); state != "" && state != "Z"; state = processState(pid) {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("the helper's child %d lives on", pid)
		}
	}
}

func processState(pid int) string {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return ""
	}
	_, rest, _ := strings.Cut(string(stat), ") ")
	return rest[:1]
}

func endAgent(t *testing.T, h *Helpers) {
	if pid := pidIn(t, h, "agent"); pid > 0 {
		_ = unix.Kill(pid, unix.SIGKILL)
	}
}

// Which helper is asked, and when none is.
func TestWhichHelper(t *testing.T) {
	tell := func(name string) string {
		return `read host; echo "{\"Username\":\"` + name + `\",\"Secret\":\"$host\"}"`
	}
	config := `{"credsStore": "store", "credHelpers": {"gcr.io": "gcloud", "quay.io": "bad"},
		"auths": {"a.io": {"auth": "` + auth("file", "p") + `"}}}`
	for _, tt := range []struct{ host, user, want, err string }{
		{"gcr.io", "", "gcloud:gcr.io", ""},
		{"a.io", "", "file:p", ""},
		{"b.io", "", "store:b.io", ""},
		{"docker.io", "", "store:https://index.docker.io/v1/", ""},
		{"b.io", "store", "store:b.io", ""},
		{"b.io", "other", ":", "you have none of that name"},
		{"quay.io", "", ":", "there is no such program in your PATH"},
	} {
		t.Run(tt.host+tt.user, func(t *testing.T) {
			k := newHome(t, map[string]string{dockerFile: config}).keychain()
			k.Helpers = helpers(t, map[string]string{"gcloud": tell("gcloud"), "store": tell("store")})
			l, err := k.Login(t.Context(), Target{Registry: tt.host, User: tt.user})
			if got := l.Name() + ":" + l.Password().Reveal(); got != tt.want || (err == nil) != (tt.err == "") || err != nil && !strings.Contains(err.Error(), tt.err) {
				t.Errorf("got %q, %v", got, err)
			}
		})
	}
}

// Without Helpers, as on a node, nothing is started, and it says so.
func TestNoHelpers(t *testing.T) {
	h := helpers(t, map[string]string{"x": "touch $DIR/ran\n" + answers})
	t.Setenv("PATH", h.Path)
	k := newHome(t, map[string]string{dockerFile: `{"credsStore": "x"}`}).keychain()
	_, err := k.Login(t.Context(), Target{Registry: "quay.io"})
	if err == nil || !strings.Contains(err.Error(), "helper programs run only in commands that you run yourself") {
		t.Errorf("got %v", err)
	}
	if _, err := os.Stat(filepath.Join(h.Path, "ran")); err == nil {
		t.Error("the helper ran")
	}
}

func TestHelperNames(t *testing.T) {
	h := helpers(t, map[string]string{"x": answers})
	for _, name := range []string{"../x", "a/../docker-credential-x", "/bin/sh", "", ".", "-x", "x y", "x;y"} {
		if _, err := h.find(name); err == nil {
			t.Errorf("%q is taken for a helper", name)
		}
	}
	if _, err := (&Helpers{Path: ".:" + h.Path}).find("x"); err != nil {
		t.Error(err)
	}
	t.Chdir(h.Path)
	if _, err := (&Helpers{Path: ".:"}).find("x"); err == nil {
		t.Error("found in the current folder")
	}
}
