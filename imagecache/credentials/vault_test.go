package credentials

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/berth-hpc/berth/fault"
)

func (h home) read(name string) string {
	h.t.Helper()
	data, err := os.ReadFile(filepath.Join(h.dir, name))
	if err != nil {
		h.t.Fatal(err)
	}
	return string(data)
}

func (h home) store(k *Keychain, key, name string) string {
	h.t.Helper()
	where, err := k.Store(h.t.Context(), key, NewLogin(name, NewSecret(secretText), "prompt"))
	if err != nil {
		h.t.Fatal(err)
	}
	return where
}

// A login is stored where jobs find it, for its owner's eyes alone, and
// nothing else in the file changes.
func TestStore(t *testing.T) {
	h := newHome(t, map[string]string{podmanFile: `{"other": {"x": [1, 2.50]}, "auths": {"ghcr.io": {"auth": "eDp5", "email": "e"}, "https://quay.io/v1/": {"auth": "b2xkOm9sZA=="}}}`})
	if err := os.Chmod(filepath.Join(h.dir, podmanFile), 0o644); err != nil {
		t.Fatal(err)
	}
	k := h.keychain()
	if where := h.store(k, "quay.io", "a"); where != filepath.Join(h.dir, podmanFile) {
		t.Errorf("stored in %s", where)
	}
	var file map[string]json.RawMessage
	var entries map[string]map[string]string
	if json.Unmarshal([]byte(h.read(podmanFile)), &file) != nil || json.Unmarshal(file["auths"], &entries) != nil {
		t.Fatal(h.read(podmanFile))
	}
	if len(entries) != 2 || entries["ghcr.io"]["email"] != "e" || !strings.Contains(string(file["other"]), "2.50") {
		t.Errorf("got %v", file)
	}
	info, err := os.Stat(filepath.Join(h.dir, podmanFile))
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	l, err := k.Login(t.Context(), Target{Registry: "quay.io"})
	if err != nil || l.Name() != "a" || l.Password().Reveal() != secretText {
		t.Errorf("got %v, %v", l, err)
	}
	if files, _ := filepath.Glob(filepath.Join(h.dir, ".config/containers/.*")); len(files) > 0 {
		t.Errorf("left: %v", files)
	}
}

func TestStoreIntoNothing(t *testing.T) {
	h := newHome(t, nil)
	h.store(h.keychain(), "quay.io", "a")
	info, err := os.Stat(filepath.Join(h.dir, ".config/containers"))
	if err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("%v, %v", info, err)
	}
	k := h.keychain()
	k.Places.AuthFile = filepath.Join(h.dir, "ci.json")
	if where := h.store(k, "quay.io/team", "ci"); where != k.Places.AuthFile {
		t.Errorf("stored in %s", where)
	}
	k.Places = Places{}
	if _, err := k.Store(t.Context(), "quay.io", NewLogin("a", NewSecret("p"), "")); err == nil || fault.Of(err) != fault.User {
		t.Errorf("without a home: %v", err)
	}
}

// A link, as people have who keep their dotfiles elsewhere, stays one.
func TestStoreThroughLink(t *testing.T) {
	h := newHome(t, map[string]string{"dotfiles/auth.json": "{}", ".config/containers/x": ""})
	link := filepath.Join(h.dir, podmanFile)
	if err := os.Symlink(filepath.Join(h.dir, "dotfiles/auth.json"), link); err != nil {
		t.Fatal(err)
	}
	h.store(h.keychain(), "quay.io", "a")
	if info, err := os.Lstat(link); err != nil || info.Mode()&os.ModeSymlink == 0 || !strings.Contains(h.read("dotfiles/auth.json"), "quay.io") {
		t.Errorf("%v %v %s", info, err, h.read("dotfiles/auth.json"))
	}
}

func TestStoreKeepsBrokenFiles(t *testing.T) {
	for _, text := range []string{`{"auths": ` + secretText, `{"auths": []}`, `[]`} {
		h := newHome(t, map[string]string{podmanFile: text})
		_, err := h.keychain().Store(t.Context(), "quay.io", NewLogin("a", NewSecret("p"), ""))
		if err == nil || h.read(podmanFile) != text || strings.Contains(err.Error(), secretText) {
			t.Errorf("%v; %s", err, h.read(podmanFile))
		}
	}
	for _, text := range []string{``, `{}`, `null`, `{"auths": null}`} {
		h := newHome(t, map[string]string{podmanFile: text})
		h.store(h.keychain(), "quay.io", "a")
	}
}

// Of logins that are stored at once none is lost.
func TestStoreAtOnce(t *testing.T) {
	h := newHome(t, nil)
	k := h.keychain()
	var wg sync.WaitGroup
	for i := range 20 {
		wg.Go(func() {
			if _, err := k.Store(t.Context(), fmt.Sprintf("host%d.io", i), NewLogin("a", NewSecret("p"), "")); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if n := len(k.List()); n != 20 {
		t.Errorf("%d logins", n)
	}
}

const storing = `case $1 in
store) cat >$DIR/stored ;;
get) read host; [ -e $DIR/stored ] && cat $DIR/stored || { echo credentials not found in x; exit 1; } ;;
erase) read host; echo "$host" >$DIR/erased; rm $DIR/stored ;;
esac`

// Where the user's files name a helper, it gets the login and no file does.
func TestStoreInHelper(t *testing.T) {
	for name, config := range map[string]string{"store": `{"credsStore": "x"}`, "host's": `{"credHelpers": {"https://index.docker.io/v1/": "x"}}`} {
		t.Run(name, func(t *testing.T) {
			h := newHome(t, map[string]string{dockerFile: config})
			k := h.keychain()
			k.Helpers = helpers(t, map[string]string{"x": storing})
			if where := h.store(k, "docker.io", "a"); where != "docker-credential-x" {
				t.Errorf("stored in %s", where)
			}
			l, err := k.Login(t.Context(), Target{Registry: "docker.io"})
			if err != nil || l.Password().Reveal() != secretText {
				t.Errorf("got %v, %v", l, err)
			}
			if _, err := os.Stat(filepath.Join(h.dir, podmanFile)); err == nil {
				t.Error("there is a file, too")
			}
			where, err := k.Erase(t.Context(), "docker.io")
			if err != nil || len(where) != 1 {
				t.Errorf("erased %v, %v", where, err)
			}
			if erased, _ := os.ReadFile(filepath.Join(k.Helpers.Path, "erased")); strings.TrimSpace(string(erased)) != hubServer {
				t.Errorf("erased %q", erased)
			}
			if where, err := k.Erase(t.Context(), "docker.io"); err != nil || len(where) != 0 {
				t.Errorf("erased again: %v, %v", where, err)
			}
		})
	}
	h := newHome(t, map[string]string{dockerFile: `{"credsStore": "desktop"}`})
	k := h.keychain()
	k.Helpers = helpers(t, nil)
	if _, err := k.Store(t.Context(), "quay.io", NewLogin("a", NewSecret("p"), "")); err == nil || !strings.Contains(fault.Remedy(err), "take it out") {
		t.Errorf("got %v", err)
	}
}

func TestErase(t *testing.T) {
	h := newHome(t, map[string]string{podmanFile: authJSON([3]string{"https://Quay.io/", "a", "p"}, [3]string{"quay.io/team", "b", "q"}, [3]string{"ghcr.io", "c", "r"})})
	k := h.keychain()
	where, err := k.Erase(t.Context(), "quay.io")
	if err != nil || len(where) != 1 || len(k.List()) != 2 {
		t.Errorf("%v, %v, %v", where, err, k.List())
	}
	if where, err := k.Erase(t.Context(), "quay.io"); err != nil || len(where) != 0 {
		t.Errorf("again: %v, %v", where, err)
	}
	if _, n, err := k.EraseAll(t.Context()); err != nil || n != 2 || len(k.List()) != 0 {
		t.Errorf("all: %d, %v", n, err)
	}
}
