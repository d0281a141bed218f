package credentials

import (
	"context"
	"encoding/base64"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/berth-hpc/berth/fault"
)

func auth(name, password string) string {
	return base64.StdEncoding.EncodeToString([]byte(name + ":" + password))
}

// A home is a user's home folder with files in it.
type home struct {
	t   *testing.T
	dir string
}

func newHome(t *testing.T, files map[string]string) home {
	t.Helper()
	h := home{t, t.TempDir()}
	for name, text := range files {
		h.write(name, text)
	}
	return h
}

func (h home) write(name, text string) {
	h.t.Helper()
	path := filepath.Join(h.dir, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		h.t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		h.t.Fatal(err)
	}
}

func (h home) keychain() *Keychain {
	p := HomePlaces(h.dir, 0)
	p.RuntimeDir = filepath.Join(h.dir, "run")
	return &Keychain{Places: p}
}

const (
	runtimeFile = "run/containers/auth.json"
	podmanFile  = ".config/containers/auth.json"
	dockerFile  = ".docker/config.json"
	enrootFile  = ".config/enroot/.credentials"
)

// authJSON writes KEY NAME PASSWORD as an auth file.
func authJSON(entries ...[3]string) string {
	var items []string
	for _, e := range entries {
		items = append(items, fmt.Sprintf("%q: {\"auth\": %q}", e[0], auth(e[1], e[2])))
	}
	return `{"auths": {` + strings.Join(items, ", ") + `}}`
}

// Which login is taken, by the files in the home folder.
func TestLogin(t *testing.T) {
	quay := Target{Registry: "quay.io", Repository: "team/tool"}
	hub := Target{Registry: "docker.io", Repository: "library/debian"}
	for _, tt := range []struct {
		name  string
		files map[string]string
		t     Target
		want  string // NAME:PASSWORD
	}{
		{"nothing at all", nil, quay, ""},
		{"podman's", map[string]string{podmanFile: authJSON([3]string{"quay.io", "a", "p"})}, quay, "a:p"},
		{"another host", map[string]string{podmanFile: authJSON([3]string{"ghcr.io", "a", "p"})}, quay, ""},
		{"not a part of the host's name", map[string]string{podmanFile: authJSON([3]string{"io", "a", "p"}, [3]string{"quay.io.example", "b", "p"})}, quay, ""},
		{"host in capitals", map[string]string{podmanFile: authJSON([3]string{"Quay.IO", "a", "p"})}, quay, "a:p"},
		{"namespace before host", map[string]string{podmanFile: authJSON([3]string{"quay.io", "a", "p"}, [3]string{"quay.io/team", "b", "q"})}, quay, "b:q"},
		{"repository before namespace", map[string]string{podmanFile: authJSON([3]string{"quay.io/team/tool", "c", "r"}, [3]string{"quay.io/team", "b", "q"})}, quay, "c:r"},
		{"another namespace", map[string]string{podmanFile: authJSON([3]string{"quay.io/tea", "b", "q"}, [3]string{"quay.io/team/toolbox", "c", "r"})}, quay, ""},
		{"port is part of the host", map[string]string{podmanFile: authJSON([3]string{"quay.io:5000", "a", "p"})}, quay, ""},
		{"docker's", map[string]string{dockerFile: authJSON([3]string{"quay.io", "a", "p"})}, quay, "a:p"},
		{"docker's address", map[string]string{dockerFile: authJSON([3]string{"https://quay.io/v2/", "a", "p"})}, quay, "a:p"},
		{"Docker Hub by its address", map[string]string{dockerFile: authJSON([3]string{"https://index.docker.io/v1/", "a", "p"})}, hub, "a:p"},
		{"Docker Hub by its old name", map[string]string{dockerFile: authJSON([3]string{"index.docker.io", "a", "p"})}, hub, "a:p"},
		{"Docker Hub by its server", map[string]string{dockerFile: authJSON([3]string{"registry-1.docker.io", "a", "p"})}, hub, "a:p"},
		{"Docker Hub by its name", map[string]string{podmanFile: authJSON([3]string{"docker.io", "a", "p"})}, Target{Registry: "index.docker.io", Repository: "x/y"}, "a:p"},
		{"Docker Hub, namespace", map[string]string{podmanFile: authJSON([3]string{"docker.io/library", "a", "p"})}, hub, "a:p"},
		{"podman before docker", map[string]string{podmanFile: authJSON([3]string{"quay.io", "a", "p"}), dockerFile: authJSON([3]string{"quay.io", "b", "q"})}, quay, "a:p"},
		{"docker where podman has none", map[string]string{podmanFile: authJSON([3]string{"ghcr.io", "a", "p"}), dockerFile: authJSON([3]string{"quay.io", "b", "q"})}, quay, "b:q"},
		{"runtime folder first", map[string]string{podmanFile: authJSON([3]string{"quay.io", "a", "p"}), runtimeFile: authJSON([3]string{"quay.io", "b", "q"})}, quay, "b:q"},
		{"docker before Enroot", map[string]string{dockerFile: authJSON([3]string{"quay.io", "a", "p"}), enrootFile: "machine quay.io login b password q"}, quay, "a:p"},
		{"Enroot's", map[string]string{enrootFile: "# mine\nmachine ghcr.io login x password y\nmachine quay.io login b password q\n"}, quay, "b:q"},
		{"Enroot's Docker Hub", map[string]string{enrootFile: "machine auth.docker.io login b password q"}, hub, "b:q"},
		{"a password with colons", map[string]string{podmanFile: authJSON([3]string{"quay.io", "a", "p:q:r"})}, quay, "a:p:q:r"},
		{"without padding", map[string]string{dockerFile: `{"auths":{"quay.io":{"auth":"` + strings.TrimRight(auth("a", "pp"), "=") + `"}}}`}, quay, "a:pp"},
		{"NULs at the end", map[string]string{dockerFile: authJSON([3]string{"quay.io", "a", "p\x00\x00"})}, quay, "a:p"},
		{"name and password", map[string]string{dockerFile: `{"auths":{"quay.io":{"username":"a","password":"p"}}}`}, quay, "a:p"},
		{"an empty entry", map[string]string{dockerFile: `{"auths":{"quay.io":{}}}`, enrootFile: "machine quay.io login b password q"}, quay, "b:q"},
		{"an empty file", map[string]string{podmanFile: "", dockerFile: authJSON([3]string{"quay.io", "a", "p"})}, quay, "a:p"},
		{"a broken file before", map[string]string{podmanFile: "{", dockerFile: authJSON([3]string{"quay.io", "a", "p"})}, quay, "a:p"},
		{"the user asked for", map[string]string{podmanFile: authJSON([3]string{"quay.io", "a", "p"}), enrootFile: "machine quay.io login b password q"}, Target{"quay.io", "team/tool", "b"}, "b:q"},
		{"the user asked for, less special", map[string]string{podmanFile: authJSON([3]string{"quay.io/team", "a", "p"}, [3]string{"quay.io", "b", "q"})}, Target{"quay.io", "team/tool", "b"}, "b:q"},
		{"two in Enroot's", map[string]string{enrootFile: "machine quay.io login a password p\nmachine quay.io login b password q"}, Target{"quay.io", "x", "b"}, "b:q"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			l, err := newHome(t, tt.files).keychain().Login(t.Context(), tt.t)
			if err != nil {
				t.Fatal(err)
			}
			got := l.Name() + ":" + l.Password().Reveal()
			if l.IsZero() {
				got = ""
			}
			if got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}

func TestTokens(t *testing.T) {
	h := newHome(t, map[string]string{dockerFile: `{"auths": {
		"a.io": {"auth": "` + auth("me", "") + `", "identitytoken": "id"},
		"b.io": {"registrytoken": "reg"}}}`})
	l, err := h.keychain().Login(t.Context(), Target{Registry: "a.io"})
	if err != nil || l.IdentityToken().Reveal() != "id" || l.Name() != "me" {
		t.Errorf("%v %v", l.Reveal().IdentityToken, err)
	}
	l, err = h.keychain().Login(t.Context(), Target{Registry: "b.io"})
	if err != nil || l.RegistryToken().Reveal() != "reg" {
		t.Errorf("%v %v", l, err)
	}
}

// $REGISTRY_AUTH_FILE stands in place of podman's own two files.
func TestAuthFileOfTheEnvironment(t *testing.T) {
	h := newHome(t, map[string]string{
		"ci.json": authJSON([3]string{"a.io", "ci", "p"}), podmanFile: authJSON([3]string{"a.io", "me", "p"}, [3]string{"b.io", "me", "p"}),
		dockerFile: authJSON([3]string{"c.io", "me", "p"}),
	})
	k := h.keychain()
	k.Places.AuthFile = filepath.Join(h.dir, "ci.json")
	for host, want := range map[string]string{"a.io": "ci", "b.io": "", "c.io": "me"} {
		l, err := k.Login(t.Context(), Target{Registry: host})
		if err != nil || l.Name() != want {
			t.Errorf("%s: %v, %v", host, l, err)
		}
	}
}

func TestVariables(t *testing.T) {
	for _, tt := range []struct{ name, text, want string }{
		{"name and password", "quay.io=bot:p=1:2", "bot:p=1:2:"},
		{"token", "quay.io=abc", "::abc"},
		{"several", "ghcr.io=x:y\n\n quay.io=bot:p \n", "bot:p:"},
		{"namespace", "quay.io=a:b\nquay.io/team=bot:p", "bot:p:"},
		{"an auth file", authJSON([3]string{"quay.io", "bot", "p"}), "bot:p:"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			k := newHome(t, map[string]string{podmanFile: authJSON([3]string{"quay.io", "me", "p"})}).keychain()
			k.Variables = []Variable{{"BERTH_REGISTRY_AUTH", NewSecret(tt.text)}}
			l, err := k.Login(t.Context(), Target{Registry: "quay.io", Repository: "team/tool"})
			r := l.Reveal()
			if got := r.Name + ":" + r.Password + ":" + r.RegistryToken; err != nil || got != tt.want || l.Source() != "$BERTH_REGISTRY_AUTH" {
				t.Errorf("got %q from %s, %v", got, l.Source(), err)
			}
		})
	}
}

// Broken sources are named, with a line, and without what stands in them.
func TestProblems(t *testing.T) {
	big := strings.Repeat(" ", maxFile) + "{}"
	for _, tt := range []struct{ name, file, text, want string }{
		{"no JSON", podmanFile, "{\n\"auths\": " + secretText, "auth.json: line 2 is not valid JSON"},
		{"cut off", dockerFile, `{"auths": {"quay.io": {"auth": "` + secretText, "config.json: line 1 is not valid JSON"},
		{"a number", dockerFile, `{"auths": {"quay.io": {"password": 12345678901}}}`, "line 1 is not what belongs there"},
		{"no base64", podmanFile, `{"auths": {"quay.io": {"auth": "` + secretText + `!"}}}`, "its auth is not base64"},
		{"no colon", podmanFile, `{"auths": {"quay.io": {"auth": "` + base64.StdEncoding.EncodeToString([]byte(secretText)) + `"}}}`, "its auth is not NAME:PASSWORD"},
		{"too large", podmanFile, big, "it is larger than"},
		{"a command", enrootFile, "machine quay.io login a password $(echo " + secretText + ")\n", "line 1: $(COMMAND) is for Enroot"},
		{"backquotes", enrootFile, "\nmachine quay.io login a password `" + secretText + "`\n", "line 2: $(COMMAND) is for Enroot"},
		{"a variable", enrootFile, "machine quay.io login a password ${PW}\n", "variables are looked up only in commands that you run yourself"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			h := newHome(t, map[string]string{tt.file: tt.text})
			_, err := h.keychain().Login(t.Context(), Target{Registry: "quay.io"})
			if err == nil || !strings.Contains(err.Error(), tt.want) || !strings.Contains(err.Error(), h.dir) || fault.Of(err) != fault.User || fault.Remedy(err) == "" {
				t.Errorf("got %v, remedy %q", err, fault.Remedy(err))
			}
			if strings.Contains(fmt.Sprint(err), secretText) || strings.Contains(fmt.Sprint(err), "12345678901") {
				t.Errorf("%v shows the file's text", err)
			}
			// Another source's login is taken, with a warning.
			h.write("ok.json", authJSON([3]string{"quay.io", "b", "q"}))
			k := h.keychain()
			k.Places.AuthFile = filepath.Join(h.dir, "ok.json")
			if tt.file != podmanFile {
				k.Places.RuntimeDir = filepath.Join(h.dir, "run")
			}
			if l, err := k.Login(t.Context(), Target{Registry: "quay.io"}); err != nil || l.Name() != "b" {
				t.Errorf("beside a good source: %v, %v", l, err)
			}
		})
	}
}

// What is passed over is said where a later source has the login.
func TestBrokenSourceIsAWarning(t *testing.T) {
	h := newHome(t, map[string]string{podmanFile: "{", dockerFile: authJSON([3]string{"quay.io", "a", "p"})})
	k := h.keychain()
	var said []string
	k.Warn = func(s string) { said = append(said, s) }
	if _, err := k.Login(t.Context(), Target{Registry: "quay.io"}); err != nil {
		t.Fatal(err)
	}
	if len(said) != 1 || !strings.Contains(said[0], podmanFile) {
		t.Errorf("said %q", said)
	}
}

func TestUserWithoutLogin(t *testing.T) {
	h := newHome(t, map[string]string{podmanFile: authJSON([3]string{"quay.io", "a", "p"})})
	_, err := h.keychain().Login(t.Context(), Target{Registry: "quay.io", User: "bob"})
	if err == nil || !strings.Contains(fault.Remedy(err), "berth login --username bob quay.io") {
		t.Errorf("got %v, %q", err, fault.Remedy(err))
	}
}

// Files that are none are refused at once; a FIFO would hang for ever.
func TestNoRegularFile(t *testing.T) {
	h := newHome(t, map[string]string{podmanFile: ""})
	path := filepath.Join(h.dir, podmanFile)
	for name, create := range map[string]func() error{
		"fifo":   func() error { return exec.Command("mkfifo", path).Run() },
		"folder": func() error { return os.Mkdir(path, 0o700) },
		"device": func() error { return os.Symlink("/dev/zero", path) },
	} {
		t.Run(name, func(t *testing.T) {
			if err := os.RemoveAll(path); err != nil {
				t.Fatal(err)
			}
			if err := create(); err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
			defer cancel()
			done := inBackground(func() error { _, err := h.keychain().Login(ctx, Target{Registry: "quay.io"}); return err })
			select {
			case err := <-done:
				if err == nil || !strings.Contains(err.Error(), "not a regular file") {
					t.Errorf("got %v", err)
				}
			case <-ctx.Done():
				t.Fatal("hangs")
			}
		})
	}
}

func inBackground(f func() error) <-chan error {
	done := make(chan error, 1)
	go func() { done <- f() }()
	return done
}

func TestOthersMayRead(t *testing.T) {
	for _, tt := range []struct {
		name, file, text string
		mode             os.FileMode
		warned           bool
	}{
		{"mine alone", podmanFile, authJSON([3]string{"quay.io", "a", "p"}), 0o600, false},
		{"group", podmanFile, authJSON([3]string{"quay.io", "a", "p"}), 0o640, true},
		{"all", dockerFile, authJSON([3]string{"quay.io", "a", "p"}), 0o644, true},
		{"nothing in it", dockerFile, `{"proxies": {}}`, 0o644, false},
		{"Enroot's", enrootFile, "machine quay.io login a password p", 0o644, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			h := newHome(t, map[string]string{tt.file: tt.text})
			if err := os.Chmod(filepath.Join(h.dir, tt.file), tt.mode); err != nil {
				t.Fatal(err)
			}
			k, warned := h.keychain(), false
			k.Warn = func(s string) { warned = strings.Contains(s, "others may read") && strings.Contains(s, tt.file) }
			if _, err := k.Login(t.Context(), Target{Registry: "quay.io"}); err != nil || warned != tt.warned {
				t.Errorf("warned: %v, %v", warned, err)
			}
		})
	}
}

func TestUnreadable(t *testing.T) {
	if os.Getuid() == 0 {
		t.Skip("root reads everything; prolog's tests look as a user")
	}
	h := newHome(t, map[string]string{podmanFile: authJSON([3]string{"quay.io", "a", "p"})})
	if err := os.Chmod(filepath.Join(h.dir, podmanFile), 0); err != nil {
		t.Fatal(err)
	}
	if _, err := h.keychain().Login(t.Context(), Target{Registry: "quay.io"}); err == nil || !strings.Contains(err.Error(), "permission denied") {
		t.Errorf("got %v", err)
	}
}

func TestEnrootVariables(t *testing.T) {
	h := newHome(t, map[string]string{enrootFile: `
machine nvcr.io login $oauthtoken password key$1
machine a.io login ${WHO} password $PW
machine b.io login "with space" password "a \"quoted\" \\ one" # comment
machine c.io login x password ${MISSING}
machine d.io
  login over
  password lines
default login any password any
`})
	k := h.keychain()
	k.Expand = func(name string) (string, bool) {
		v, ok := map[string]string{"WHO": "me", "PW": "p$(not)run"}[name]
		return v, ok
	}
	for host, want := range map[string]string{
		"nvcr.io": "$oauthtoken:key$1", "a.io": "me:p$(not)run", "b.io": `with space:a "quoted" \ one`,
		"d.io": "over:lines", "other.io": ":",
	} {
		l, err := k.Login(t.Context(), Target{Registry: host})
		if got := l.Name() + ":" + l.Password().Reveal(); err != nil || got != want {
			t.Errorf("%s: got %q, %v", host, got, err)
		}
	}
	if _, err := k.Login(t.Context(), Target{Registry: "c.io"}); err == nil || !strings.Contains(err.Error(), "$MISSING is not set") {
		t.Errorf("got %v", err)
	}
}

func TestList(t *testing.T) {
	h := newHome(t, map[string]string{
		podmanFile: authJSON([3]string{"quay.io/team", "a", secretText}),
		dockerFile: `{"credsStore": "x", "credHelpers": {"gcr.io": "gcloud"}, "auths": {"https://index.docker.io/v1/": {}, "b.io": {"identitytoken": "` + secretText + `"}}}`,
		enrootFile: "machine nvcr.io login $oauthtoken password " + secretText,
	})
	k := h.keychain()
	k.Variables = []Variable{{"V", NewSecret("c.io=" + secretText)}}
	got := fmt.Sprint(k.List())
	for _, want := range []string{"{c.io  token $V}", "{quay.io/team a password ", "{gcr.io  helper gcloud ", "{b.io  identity token ", "{*  helper x ", "{nvcr.io $oauthtoken password "} {
		if !strings.Contains(got, want) {
			t.Errorf("%q is missing in %s", want, got)
		}
	}
	if strings.Contains(got, secretText) || strings.Contains(got, "docker.io") {
		t.Errorf("got %s", got)
	}
}
