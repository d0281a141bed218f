package config

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/berth-hpc/berth/fault"
	"github.com/google/go-cmp/cmp"
)

// write puts files, by their path below a new folder, and returns the folder.
func write(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func environment(vars map[string]string) func(string) (string, bool) {
	return func(name string) (string, bool) { v, ok := vars[name]; return v, ok }
}

func TestSourcesOverrideEachOther(t *testing.T) {
	dir := write(t, map[string]string{
		"berth.toml": `
[store]
dir = "/site"
user_dir = "/site-user"
[resolve]
timeout = "1s"
ttl = "1m"
[container]
mount_home = false
mounts = ["/db:ro", "/softs:/opt/softs:ro+nosuid", "/scratch/%u"]
[registry."quay.io"]
ca = "/etc/ca.pem"
mirrors = ["a.example"]
`,
		"conf.d/10.toml": "resolve.timeout = '2s'\nregistry.'quay.io'.mirrors = ['b.example/q']\n",
		"conf.d/20.toml": "[resolve]\ntimeout = '4s'\n",
		"conf.d/README":  "not read",
		"user.toml":      "container.root = 'writable'\nresolve.ttl = '5m'\nregistry.'10.0.0.1:5000'.insecure = true\n",
	})
	c, err := Load(Source{
		Dir: dir, User: filepath.Join(dir, "user.toml"),
		Env: environment(map[string]string{"BERTH_RESOLVE_TTL": "0s", "BERTH_CONTAINER_IMAGE": "not a setting"}),
	})
	if err != nil {
		t.Fatal(err)
	}
	want := defaults()
	want.Store.Dir, want.Store.UserDir = "/site", "/site-user"
	want.Resolve = Resolve{Timeout: 4 * time.Second, TTL: 0}
	want.Container = Container{
		MountDir: true, Root: Writable, Changes: InMemory, Memory: Share{Percent: 50}, Scratch: "%t", IDMap: true, Dev: HostDev,
		UserMounts: true, MountTimeout: 10 * time.Second, Volumes: true, IdleTimeout: time.Minute, EntrypointTimeout: 2 * time.Minute, SaveTimeout: time.Hour,
		NamesDir: "/var/tmp/berth-%U", NamesScope: ScopeGlobal, NamesExpiry: 14 * 24 * time.Hour,
		Mounts: []string{"/db:/db:ro", "/softs:/opt/softs:ro+nosuid", "/scratch/%u:/scratch/%u"},
	}
	want.Registry = map[string]*Registry{
		"quay.io":       {CA: "/etc/ca.pem", Mirrors: []string{"b.example/q"}},
		"10.0.0.1:5000": {Insecure: true},
	}
	if diff := cmp.Diff(want, c, cmp.FilterPath(func(p cmp.Path) bool { return p.Last().String() == ".origin" }, cmp.Ignore())); diff != "" {
		t.Error(diff)
	}
	origins := map[string]Origin{
		"store.dir":                   Origin(filepath.Join(dir, "berth.toml")),
		"resolve.timeout":             Origin(filepath.Join(dir, "conf.d/20.toml")),
		"resolve.ttl":                 "$BERTH_RESOLVE_TTL",
		"container.root":              Origin(filepath.Join(dir, "user.toml")),
		`registry."quay.io".mirrors`:  Origin(filepath.Join(dir, "conf.d/10.toml")),
		`registry."quay.io".ca`:       Origin(filepath.Join(dir, "berth.toml")),
		`registry."quay.io".insecure`: Default,
		"node.account":                Default,
	}
	for key, want := range origins {
		if got := c.Origin(key); got != want {
			t.Errorf("Origin(%s) = %s, want %s", key, got, want)
		}
	}
}

func TestErrorsNameFileAndKey(t *testing.T) {
	tests := []struct {
		name, site, user string
		env              map[string]string
		want             string // %d is the folder
		blame            fault.Blame
	}{
		{name: "unknown key", site: "[store]\ndri = '/x'", want: "read %d/berth.toml: unknown key store.dri", blame: fault.Site},
		{name: "unknown section", site: "[stor]\n", want: "read %d/berth.toml: unknown key stor", blame: fault.Site},
		{name: "unknown registry key", site: "registry.'quay.io'.insecur = true", want: `read %d/berth.toml: unknown key registry."quay.io".insecur`, blame: fault.Site},
		{name: "registries as a list", site: "[[registry]]\nhost = 'x'", want: "read %d/berth.toml: unknown key registry", blame: fault.Site},
		{name: "setting as a table", site: "[store.dir]\nx = 1", want: "read %d/berth.toml: store.dir: want text in quotes", blame: fault.Site},
		{name: "user's unknown key", user: "store.dri = 1", want: "read %d/user.toml: unknown key store.dri", blame: fault.User},
		{name: "the site's key", user: "store.dir = '/x'", want: "read %d/user.toml: store.dir is for the site to set, in /etc/berth/berth.toml", blame: fault.User},
		{name: "wrong type", site: "container.mount_home = 'yes'", want: "read %d/berth.toml: container.mount_home: want true or false", blame: fault.Site},
		{name: "number for a duration", site: "resolve.ttl = 3", want: `read %d/berth.toml: resolve.ttl: want a duration, as in "90s" or "10m"`, blame: fault.Site},
		{name: "relative path", site: "store.dir = 'x'", want: `read %d/berth.toml: store.dir: "x" is not an absolute path`, blame: fault.Site},
		{name: "no such word", user: "container.root = 'rw'", want: `read %d/user.toml: container.root: "rw" is none of readonly, writable`, blame: fault.User},
		{name: "no account", site: "node.account = ''", want: "read %d/berth.toml: node.account: it is empty", blame: fault.Site},
		{name: "negative", site: "node.prolog_wait = '-1s'", want: "read %d/berth.toml: node.prolog_wait: -1s is negative", blame: fault.Site},
		{name: "zero deadline", site: "node.prepare_deadline = '0s'", want: "read %d/berth.toml: node.prepare_deadline: 0s is not more than zero", blame: fault.Site},
		{name: "mount source", site: "container.mounts = ['db']", want: `read %d/berth.toml: container.mounts: "db": the source must begin with / or %h`, blame: fault.Site},
		{name: "mount comma", site: "container.mounts = ['/a,/b']", want: `read %d/berth.toml: container.mounts: "/a,/b": a comma; write one mount per element`, blame: fault.Site},
		{name: "mount percent", site: "container.mounts = ['/a/%x']", want: `read %d/berth.toml: container.mounts: "/a/%x": after % comes one of u, U, g, G, h, j, H and %`, blame: fault.Site},
		{name: "rule's path", site: "container.user_mounts_deny = ['etc']", want: `read %d/berth.toml: container.user_mounts_deny: "etc" is not an absolute path`, blame: fault.Site},
		{name: "a user's rule", user: "container.user_mounts = true", want: `read %d/user.toml: container.user_mounts is for the site to set, in /etc/berth/berth.toml`, blame: fault.User},
		{name: "list of numbers", site: "container.mounts = [1]", want: `read %d/berth.toml: container.mounts: want a list of texts, as in ["a", "b"]`, blame: fault.Site},
		{name: "mirror with scheme", site: "registry.x.mirrors = ['http://m']", want: `read %d/berth.toml: registry."x".mirrors: "http://m" is not HOST or HOST/PREFIX`, blame: fault.Site},
		{name: "syntax", site: "\nstore = [", want: "read %d/berth.toml: line 2:", blame: fault.Site},
		{name: "variable", env: map[string]string{"BERTH_CONTAINER_MOUNT_HOME": "perhaps"}, want: "read $BERTH_CONTAINER_MOUNT_HOME: want yes or no", blame: fault.User},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			dir := write(t, map[string]string{"berth.toml": tt.site, "user.toml": tt.user})
			_, err := Load(Source{Dir: dir, User: filepath.Join(dir, "user.toml"), Env: environment(tt.env)})
			if err == nil {
				t.Fatal("no error")
			}
			want := strings.ReplaceAll(tt.want, "%d", dir)
			if !strings.HasPrefix(err.Error(), want) || strings.Contains(err.Error(), "\n") {
				t.Errorf("got  %v\nwant %s", err, want)
			}
			if got := fault.Of(err); got != tt.blame {
				t.Errorf("blames %v, want %v", got, tt.blame)
			}
			if fault.Remedy(err) == "" {
				t.Error("no remedy")
			}
		})
	}
}

// A variable that only the site may set is left alone, and root's source
// reads no variable at all.
func TestVariablesOfTheSiteAreNotRead(t *testing.T) {
	c, err := Load(Source{Dir: t.TempDir(), Env: environment(map[string]string{"BERTH_STORE_DIR": "/x", "BERTH_CONTAINER_MOUNTS": "/x"})})
	if err != nil {
		t.Fatal(err)
	}
	if c.Store.Dir != "/var/lib/berth" || c.Container.Mounts != nil {
		t.Errorf("got %+v", c)
	}
	if s := Site(); s.Env != nil || s.User != "" {
		t.Errorf("Site() = %+v", s)
	}
}

func TestUserDir(t *testing.T) {
	set := write(t, map[string]string{"berth.toml": "store.user_dir = '~/images'\nregistry.r.ca = '~/ca.pem'"})
	tests := []struct {
		name string
		src  Source
		want string
	}{
		{"home", Source{Home: "/home/u"}, "/home/u/.cache/berth"},
		{"XDG", Source{Home: "/home/u", Cache: "/fast/u"}, "/fast/u/berth"},
		{"relative XDG is ignored", Source{Home: "/home/u", Cache: "fast"}, "/home/u/.cache/berth"},
		{"no home", Source{}, ""},
		{"set", Source{Dir: set, Home: "/home/u", Cache: "/fast/u"}, "/home/u/images"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c, err := Load(tt.src)
			if err != nil {
				t.Fatal(err)
			}
			if c.Store.UserDir != tt.want {
				t.Errorf("got %s, want %s", c.Store.UserDir, tt.want)
			}
			if r := c.Registry["r"]; r != nil && r.CA != "/home/u/ca.pem" {
				t.Errorf("ca = %s", r.CA)
			}
		})
	}
}

// The template is a file that Load reads, as it is and with its comments on
// keys taken away.
func TestTemplateLoads(t *testing.T) {
	text := Template()
	var live []string
	for _, line := range strings.Split(text, "\n") {
		if rest, ok := strings.CutPrefix(line, "#"); ok && !strings.HasPrefix(rest, " ") {
			line = rest
		}
		live = append(live, line)
		if len(line) > 80 {
			t.Errorf("%d bytes: %s", len(line), line)
		}
	}
	for _, file := range []string{text, strings.Join(live, "\n")} {
		dir := write(t, map[string]string{"berth.toml": file})
		if _, err := Load(Source{Dir: dir}); err != nil {
			t.Errorf("%v in:\n%s", err, file)
		}
	}
	for _, s := range Settings() {
		if !strings.HasSuffix(s.Doc, ".") {
			t.Errorf("%s is not documented in sentences", s.Key)
		}
	}
}

// What show prints can be put into a file and means the same.
func TestValuesReadBack(t *testing.T) {
	first, err := Load(Source{Dir: write(t, map[string]string{"berth.toml": `
store.dir = "/with \"quotes\" and \\ and \u0001"
container.mounts = ["/db:ro"]
registry."a.b:5000".mirrors = ["m", "n"]
resolve.ttl = "90m"
`}), Home: "/h"})
	if err != nil {
		t.Fatal(err)
	}
	var file strings.Builder
	for _, v := range first.Values() {
		if v.Origin != Default {
			file.WriteString(v.Key + " = " + v.String() + "\n")
		}
	}
	second, err := Load(Source{Dir: write(t, map[string]string{"berth.toml": file.String()}), Home: "/h"})
	if err != nil {
		t.Fatalf("%v in:\n%s", err, file.String())
	}
	if diff := cmp.Diff(first, second, cmp.FilterPath(func(p cmp.Path) bool { return p.Last().String() == ".origin" }, cmp.Ignore())); diff != "" {
		t.Error(diff)
	}
}

// Changes in memory are a share of what the job may use, of the machine's
// where nothing says so, and never so little that no container fits.
func TestMemoryLimit(t *testing.T) {
	c := Container{Memory: Share{Percent: 50}}
	if got := c.MemoryLimit(8 << 30); got != 4<<30 {
		t.Errorf("half of 8 GiB is %d", got)
	}
	if got := c.MemoryLimit(0); got < 64<<20 {
		t.Errorf("half of this machine is %d", got)
	}
	for limit, want := range map[Size]int64{0: 0, 1: leastMemory, 5 << 20: 5 << 20} {
		if got := (&Container{Memory: Share{Size: limit}}).MemoryLimit(8 << 30); got != want {
			t.Errorf("%v: %d, want %d", limit, got, want)
		}
	}
}

func TestScratchFolder(t *testing.T) {
	for path, good := range map[string]bool{"": true, "%t": true, "%t/x": true, "%h/x": true, "/scratch/%u": true, "scratch": false, "%u/x": false} {
		if err := scratchFolder(path); (err == nil) != good {
			t.Errorf("%q: %v", path, err)
		}
	}
}
