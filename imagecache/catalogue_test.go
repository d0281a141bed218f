package imagecache

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/berth-hpc/berth/fault"
	"github.com/berth-hpc/berth/imagecache/credentials"
	"github.com/berth-hpc/berth/testdata/registry/server"
)

var someDigest = "sha256:" + strings.Repeat("0123456789abcdef", 4)

// aCatalogue is what the registries of these tests have.
func aCatalogue() server.Catalogue {
	pushed := time.Date(2024, 5, 6, 7, 8, 9, 0, time.UTC)
	return server.Catalogue{Repositories: []server.Repository{
		{Name: "biocontainers/samtools", Description: "Tools for\nSAM files", Stars: 3, Pulls: 1000, Tags: []server.Tag{
			{Name: "1.9--h91753b0_8", Digest: someDigest, Size: 70e6, Pushed: pushed},
			{Name: "latest", Digest: someDigest, Size: 90e6, Pushed: pushed},
			{Name: "1.17--hd87286a_1", Digest: someDigest, Size: 90e6, Pushed: pushed},
			{Name: "1.17--h00cdaf9_0", Digest: someDigest, Size: 80e6, Pushed: pushed},
		}},
		{Name: "biocontainers/bwa", Description: "aligner, output for samtools"},
		{Name: "biocontainers/fastqc"},
		{Name: "elsewhere/samtools", Description: "another"},
		{Name: "library/samtools", Official: true},
	}}
}

// aRegistry has the interfaces of aCatalogue, and by the specification's two of its
// repositories.
func aRegistry(t *testing.T, wrap func(http.Handler) http.Handler) *server.Started {
	t.Helper()
	reg := server.Start(t, server.Options{Wrap: wrap})
	r, img := &testRegistry{host: reg.Host}, imageOf(t, tarOf(t, file("f", 0o644, "x")))
	for _, name := range []string{"biocontainers/samtools:1.9--h91753b0_8", "biocontainers/samtools:1.17--h00cdaf9_0", "biocontainers/bwa:1"} {
		r.push(t, name, img)
	}
	reg.Forget()
	return reg
}

func parseRef(t *testing.T, s string) Reference {
	t.Helper()
	ref, err := ParseReference(s)
	if err != nil {
		t.Fatal(err)
	}
	return ref
}

func speaks(host string, api API) Network {
	return Network{Hosts: map[string]Host{host: {API: api}}, RetryWait: time.Millisecond}
}

func tagNames(l *Listing[Tag]) string {
	var names []string
	for _, e := range l.Entries {
		names = append(names, e.Name)
	}
	return strings.Join(names, " ")
}

func foundNames(l *Listing[Found], host string) string {
	var names []string
	for _, e := range l.Entries {
		names = append(names, strings.TrimPrefix(e.Name, host+"/"))
	}
	if l.API == APINone {
		slices.Sort(names) // the tests' own registry has no order
	}
	return strings.Join(names, " ")
}

func TestTags(t *testing.T) {
	reg := aRegistry(t, aCatalogue().Wrap)
	for _, test := range []struct {
		api  API
		want string
		full bool
	}{
		{APIQuay, "1.17--hd87286a_1 1.17--h00cdaf9_0 1.9--h91753b0_8 latest", true},
		{APIDockerHub, "1.17--hd87286a_1 1.17--h00cdaf9_0 1.9--h91753b0_8 latest", true},
		{APINone, "1.17--h00cdaf9_0 1.9--h91753b0_8", false},
		{APIAuto, "1.17--h00cdaf9_0 1.9--h91753b0_8", false},
	} {
		t.Run(string(test.api), func(t *testing.T) {
			l, err := Tags(testContext(t), parseRef(t, reg.Host+"/biocontainers/samtools"), speaks(reg.Host, test.api))
			if err != nil {
				t.Fatal(err)
			}
			if got := tagNames(l); got != test.want || len(l.Notes) != 0 || l.Source != reg.Host {
				t.Errorf("%s from %s, %q", got, l.Source, l.Notes)
			}
			first := l.Entries[0]
			if full := first.Digest.String() == someDigest && first.Size == 90e6 && first.Updated.Year() == 2024; full != test.full {
				t.Errorf("%+v", first)
			}
		})
	}
	_, err := Tags(testContext(t), parseRef(t, reg.Host+"/no/such"), speaks(reg.Host, APIQuay))
	if blame := fault.Of(err); err == nil || blame != fault.User || !strings.Contains(err.Error(), "no/such: ") {
		t.Errorf("no such repository: %v, %v", blame, err)
	}
}

// TestTagsFallBack: an interface that fails in any way costs no more than what
// it alone can tell, and a bounded time.
func TestTagsFallBack(t *testing.T) {
	broken := map[string]http.HandlerFunc{
		"has none":     http.NotFound,
		"is busy":      func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "", http.StatusServiceUnavailable) },
		"is a page":    func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "<html>please log in</html>") },
		"breaks off":   func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) },
		"is silent":    func(_ http.ResponseWriter, req *http.Request) { <-req.Context().Done() },
		"is too large": func(w http.ResponseWriter, _ *http.Request) { hugeList(w) },
		"leads inward": func(w http.ResponseWriter, req *http.Request) {
			http.Redirect(w, req, "ftp://127.0.0.1/", http.StatusFound)
		},
	}
	for name, fails := range broken {
		t.Run(name, func(t *testing.T) {
			reg := aRegistry(t, func(next http.Handler) http.Handler {
				return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
					if strings.HasPrefix(req.URL.Path, "/api/") {
						fails(w, req)
						return
					}
					next.ServeHTTP(w, req)
				})
			})
			deadline := 20 * time.Second
			if name == "is silent" {
				deadline = 4 * time.Second // of which half is left
			}
			ctx, cancel := context.WithTimeout(testContext(t), deadline)
			defer cancel()
			net := speaks(reg.Host, APIQuay)
			l, err := Tags(ctx, parseRef(t, reg.Host+"/biocontainers/samtools"), net)
			if err != nil {
				t.Fatal(err)
			}
			if tagNames(l) != "1.17--h00cdaf9_0 1.9--h91753b0_8" || len(l.Notes) != 1 || !strings.Contains(l.Notes[0], "its own failed") || l.API != APINone {
				t.Errorf("%+v", l)
			}
			ctx, cancel = context.WithTimeout(testContext(t), deadline)
			defer cancel()
			found, err := Search(ctx, Query{Registry: reg.Host, Term: "samtools"}, net)
			if err != nil || foundNames(found, reg.Host) != "biocontainers/samtools" || len(found.Notes) != 1 {
				t.Errorf("%+v, %v", found, err)
			}
		})
	}
}

// hugeList is a list that has no end.
func hugeList(w http.ResponseWriter) {
	fmt.Fprint(w, `{"name":"x","tags":[`)
	for i := 0; ; i++ {
		if _, err := fmt.Fprintf(w, `"t%d",`, i); err != nil {
			return
		}
	}
}

// TestTagsOfPrivate: the login is for the registry's own tags; no other
// interface sees it.
func TestTagsOfPrivate(t *testing.T) {
	users := &server.Users{Passwords: map[string]string{"biocontainers": "secret"}, Tokens: true}
	var mu sync.Mutex
	leaked := []string{}
	reg := aRegistry(t, func(next http.Handler) http.Handler {
		inner := users.Wrap(next)
		return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
			if strings.HasPrefix(req.URL.Path, "/api/") {
				mu.Lock()
				leaked = append(leaked, req.Header.Get("Authorization"))
				mu.Unlock()
				http.Error(w, `{"message":"Unauthorized"}`, http.StatusUnauthorized)
				return
			}
			inner.ServeHTTP(w, req)
		})
	})
	users.Lock()
	net := speaks(reg.Host, APIQuay)
	if _, err := Tags(testContext(t), parseRef(t, reg.Host+"/biocontainers/samtools"), net); !IsRefused(err) {
		t.Errorf("without a login: %v", err)
	}
	auth := fmt.Sprintf(`{"auths":{%q:{"auth":"YmlvY29udGFpbmVyczpzZWNyZXQ="}}}`, reg.Host)
	net.Credentials = Keychain(&credentials.Keychain{Variables: []credentials.Variable{{Name: "X", Text: credentials.NewSecret(auth)}}})
	l, err := Tags(testContext(t), parseRef(t, reg.Host+"/biocontainers/samtools"), net)
	if err != nil || tagNames(l) != "1.17--h00cdaf9_0 1.9--h91753b0_8" {
		t.Errorf("with a login: %+v, %v", l, err)
	}
	if diff := cmp.Diff([]string{"", ""}, leaked); diff != "" {
		t.Errorf("the interface saw a login: %s", diff)
	}
}

// TestTagsByMirrors asks as a pull does: a mirror first, by the prefix that it
// has, and the registry if that fails or has nothing.
func TestTagsByMirrors(t *testing.T) {
	reg := aRegistry(t, aCatalogue().Wrap)
	mirror := server.Start(t, server.Options{})
	ref := parseRef(t, reg.Host+"/biocontainers/samtools")
	net := speaks(reg.Host, APIQuay)
	net.Retries = -1
	net.Hosts[reg.Host] = Host{API: APIQuay, Mirrors: []string{mirror.Host + "/proxy"}}
	l, err := Tags(testContext(t), ref, net)
	if err != nil || l.Source != reg.Host || mirror.Count("GET", "/v2/proxy/biocontainers/samtools/tags/list") != 1 {
		t.Errorf("%+v, %v; the mirror was asked %v", l, err, mirror.Requests())
	}
	(&testRegistry{host: mirror.Host}).push(t, "proxy/biocontainers/samtools:0.5", imageOf(t, tarOf(t, file("f", 0o644, "x"))))
	reg.Forget()
	if l, err = Tags(testContext(t), ref, net); err != nil || l.Source != mirror.Host || tagNames(l) != "0.5" {
		t.Errorf("%+v, %v", l, err)
	}
	if n := reg.Count("", ""); n != 0 {
		t.Errorf("the registry was asked %d times", n)
	}
	net.Hosts[reg.Host] = Host{API: APINone, Mirrors: []string{mirror.Host + "/proxy"}}
	found, err := Search(testContext(t), Query{Registry: reg.Host, Term: "sam"}, net)
	if err != nil || found.Source != mirror.Host || foundNames(found, reg.Host) != "biocontainers/samtools" {
		t.Errorf("%+v, %v", found, err)
	}
}

func TestSearch(t *testing.T) {
	reg := aRegistry(t, aCatalogue().Wrap)
	for _, test := range []struct {
		name string
		api  API
		q    Query
		want string
		more bool
	}{
		{"Quay", APIQuay, Query{Term: "samtools"}, "biocontainers/samtools biocontainers/bwa elsewhere/samtools library/samtools", false},
		{"Quay's first", APIQuay, Query{Term: "samtools", Limit: 1}, "biocontainers/samtools", true},
		{"Quay's second page", APIQuay, Query{Term: "samtools", Limit: 3, Skip: 3}, "library/samtools", false},
		{"Quay's namespace", APIQuay, Query{Namespace: "biocontainers"}, "biocontainers/samtools biocontainers/bwa biocontainers/fastqc", false},
		{"Quay's namespace and word", APIQuay, Query{Namespace: "biocontainers", Term: "SAMtools"}, "biocontainers/samtools biocontainers/bwa", false},
		{"Docker Hub", APIDockerHub, Query{Term: "samtools"}, "biocontainers/samtools biocontainers/bwa elsewhere/samtools library/samtools", false},
		{"Docker Hub's namespace", APIDockerHub, Query{Namespace: "biocontainers", Term: "bwa"}, "biocontainers/bwa", false},
		{"Harbor", APIHarbor, Query{Term: "samtools", Namespace: "elsewhere"}, "elsewhere/samtools", false},
		{"Harbor's project", APIHarbor, Query{Namespace: "biocontainers"}, "biocontainers/samtools biocontainers/bwa biocontainers/fastqc", false},
		{"the specification's", APINone, Query{Term: "samtools"}, "biocontainers/samtools", false},
		{"the specification's namespace", APINone, Query{Namespace: "biocontainers"}, "biocontainers/bwa biocontainers/samtools", false},
		{"nothing", APIDockerHub, Query{Term: "nothing"}, "", false},
	} {
		t.Run(test.name, func(t *testing.T) {
			test.q.Registry = reg.Host
			l, err := Search(testContext(t), test.q, speaks(reg.Host, test.api))
			if err != nil {
				t.Fatal(err)
			}
			if got := foundNames(l, reg.Host); got != test.want || l.More != test.more || len(l.Notes) != 0 || l.API != test.api {
				t.Errorf("%q, more %v, %q", got, l.More, l.Notes)
			}
		})
	}
	l, err := Search(testContext(t), Query{Registry: reg.Host, Term: "samtools", Limit: 1}, speaks(reg.Host, APIQuay))
	want := Found{
		Name: reg.Host + "/biocontainers/samtools", Description: "Tools for SAM files", Stars: 3, Pulls: 1000,
		Updated: time.Date(2024, 5, 6, 7, 8, 9, 0, time.UTC),
	}
	if diff := cmp.Diff(want, l.Entries[0]); err != nil || diff != "" {
		t.Errorf("%v, -want +got:\n%s", err, diff)
	}
}

// TestSearchShowsSoMuch: Quay answers with its last page for all that follow.
func TestSearchShowsSoMuch(t *testing.T) {
	var many server.Catalogue
	for i := range 30 {
		many.Repositories = append(many.Repositories, server.Repository{Name: fmt.Sprintf("n/x%d", i)})
	}
	reg := server.Start(t, server.Options{Wrap: many.Wrap})
	l, err := Search(testContext(t), Query{Registry: reg.Host, Term: "x"}, speaks(reg.Host, APIQuay))
	if err != nil || len(l.Entries) != 20 || len(l.Notes) != 1 || !strings.Contains(l.Notes[0], "shows no more than this") {
		t.Errorf("%+v, %v", l, err)
	}
}

func TestSearchRefuses(t *testing.T) {
	for name, q := range map[string]Query{
		"nothing to look for": {}, "a path for a host": {Registry: "../x", Term: "x"},
		"a namespace that leads elsewhere": {Registry: "quay.io", Namespace: "../../x"},
	} {
		if _, err := Search(testContext(t), q, Network{Proxy: "http://127.0.0.1:1", Retries: -1}); fault.Of(err) != fault.User {
			t.Errorf("%s: %v", name, err)
		}
	}
	closed := server.Start(t, server.Options{Wrap: func(http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "", http.StatusUnauthorized) })
	}})
	_, err := Search(testContext(t), Query{Registry: closed.Host, Term: "x"}, Network{})
	if fault.Of(err) != fault.User || !strings.Contains(fault.Remedy(err), "lists its repositories to nobody") {
		t.Errorf("%v; %s", err, fault.Remedy(err))
	}
}

// TestCatalogueHosts: each registry is asked where its interface is. The names
// lead nowhere from here but through the proxy.
func TestCatalogueHosts(t *testing.T) {
	reg := httptest.NewUnstartedServer(aCatalogue().Wrap(http.NotFoundHandler()))
	reg.Config.ErrorLog = quietLog()
	reg.StartTLS()
	t.Cleanup(reg.Close)
	for _, test := range []struct{ ref, seen, settings string }{
		{"biocontainers/samtools", "CONNECT hub.docker.com:443", "docker.io"},
		{"biocontainers/samtools", "CONNECT hub.docker.com:443", "hub.docker.com"},
		{"quay.io/biocontainers/samtools", "CONNECT quay.io:443", "quay.io"},
	} {
		p := startProxy(t, strings.TrimPrefix(reg.URL, "https://"))
		net := Network{Retries: -1, Hosts: map[string]Host{test.settings: {Insecure: true, Proxy: p.url}}}
		l, err := Tags(testContext(t), parseRef(t, test.ref), net)
		if err != nil || len(l.Entries) != 4 || p.requests() != test.seen {
			t.Errorf("%s: %+v, %v, %s", test.ref, l, err, p.requests())
		}
	}
}

// hostile is a registry that answers each request for a list with f.
func hostile(t *testing.T, f http.HandlerFunc) (host string, net Network) {
	t.Helper()
	reg := server.Start(t, server.Options{Wrap: func(http.Handler) http.Handler { return f }})
	net = speaks(reg.Host, APINone)
	net.Retries = -1
	return reg.Host, net
}

func listFrom(t *testing.T, f http.HandlerFunc) (*Listing[Tag], error) {
	t.Helper()
	host, net := hostile(t, f)
	return Tags(testContext(t), parseRef(t, host+"/x"), net)
}

func nextIs(w http.ResponseWriter, target string) {
	w.Header().Set("Link", "<"+target+`>; rel="next"`)
}

// TestListsEnd: whatever a registry says comes next, a list ends.
func TestListsEnd(t *testing.T) {
	asked := 0
	for _, test := range []struct {
		name, why string
		answer    func(w http.ResponseWriter, n int)
	}{
		{"pages that repeat", "it repeats itself", func(w http.ResponseWriter, n int) {
			nextIs(w, fmt.Sprintf("/v2/x/tags/list?last=%d", n))
			fmt.Fprint(w, `{"tags":["a"]}`)
		}},
		{"pages with nothing", "it repeats itself", func(w http.ResponseWriter, n int) {
			nextIs(w, fmt.Sprintf("/v2/x/tags/list?last=%d", n))
			fmt.Fprint(w, `{"tags":null}`)
		}},
		{"pages without end", "it has more than 1000 pages", func(w http.ResponseWriter, n int) {
			nextIs(w, fmt.Sprintf("/v2/x/tags/list?last=%d", n))
			fmt.Fprintf(w, `{"tags":["t%d"]}`, n)
		}},
		{"names without end", "it has more than 100000 names", func(w http.ResponseWriter, n int) {
			nextIs(w, fmt.Sprintf("/v2/x/tags/list?last=%d", n))
			fmt.Fprintf(w, `{"tags":["t%d"`, n)
			for i := range 30_000 {
				fmt.Fprintf(w, `,"t%d.%d"`, n, i)
			}
			fmt.Fprint(w, `]}`)
		}},
		{"a long address", "too long", func(w http.ResponseWriter, n int) {
			nextIs(w, "/v2/x/tags/list?last="+strings.Repeat("x", 5000))
			fmt.Fprintf(w, `{"tags":["t%d"]}`, n)
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			asked = 0
			l, err := listFrom(t, func(w http.ResponseWriter, _ *http.Request) {
				asked++
				test.answer(w, asked)
			})
			if err != nil || len(l.Notes) != 1 || !strings.Contains(l.Notes[0], test.why) {
				t.Fatalf("%v, %+v", err, l)
			}
			if len(l.Entries) > maxNames {
				t.Errorf("%d entries", len(l.Entries))
			}
		})
	}
	_, err := listFrom(t, func(w http.ResponseWriter, _ *http.Request) { hugeList(w) })
	if err == nil || !strings.Contains(err.Error(), "has more than 4194304 bytes") {
		t.Errorf("an answer without end: %v", err)
	}
}

// TestNextPageIsHere: an address of a next page on another host is asked for
// here, so that neither a login nor a request goes there.
func TestNextPageIsHere(t *testing.T) {
	elsewhere := server.Start(t, server.Options{})
	l, err := listFrom(t, func(w http.ResponseWriter, req *http.Request) {
		if req.FormValue("last") == "" {
			nextIs(w, "http://"+elsewhere.Host+"/v2/secret/tags/list?n=1000&last=a")
			fmt.Fprint(w, `{"tags":["a"]}`)
			return
		}
		fmt.Fprintf(w, `{"tags":["at%s"]}`, strings.ReplaceAll(req.URL.Path, "/", "."))
	})
	if err != nil || tagNames(l) != "a at.v2.x.tags.list" {
		t.Errorf("%+v, %v", l, err)
	}
	if n := elsewhere.Count("", ""); n != 0 {
		t.Errorf("another host was asked %d times", n)
	}
	next := http.Header{"Link": {`</a?x=1>; rel="prev", </v2/x/tags/list?last=b%2Cc&n=2>; rel="next"`}}
	if got := nextQuery(next); got != "last=b%2Cc&n=2" {
		t.Errorf("the next page is %q", got)
	}
}

// TestNamesAreNames: what a registry calls tags and repositories, and how it
// describes them, reaches a terminal only as far as it is fit for one.
func TestNamesAreNames(t *testing.T) {
	evil := "\x1b]0;owned\x07\u202e\u009b2J\nfake line"
	l, err := listFrom(t, func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprintf(w, `{"tags":["good",%s,"-rf","a b","",".hidden"]}`, quoteJSON(evil))
	})
	if err != nil || tagNames(l) != "good" {
		t.Errorf("%+v, %v", l, err)
	}
	c := server.Catalogue{Repositories: []server.Repository{
		{Name: "a/b", Description: evil + strings.Repeat("x", 1000), Pulls: -1, Tags: []server.Tag{{Name: "v1", Digest: evil, Size: -5, Pushed: time.Unix(1<<40, 0)}, {Name: evil}}},
		{Name: "a/" + evil},
		{Name: "a/../../b"},
		{Name: "a/B C"},
	}}
	for _, api := range []API{APIQuay, APIDockerHub, APIHarbor} {
		reg := server.Start(t, server.Options{Wrap: c.Wrap})
		found, err := Search(testContext(t), Query{Registry: reg.Host, Namespace: "a"}, speaks(reg.Host, api))
		if err != nil || foundNames(found, reg.Host) != "a/b" {
			t.Errorf("%s: %+v, %v", api, found, err)
			continue
		}
		if d := found.Entries[0].Description; strings.ContainsAny(d, "\x1b\x07\u202e\u009b\n") || len([]rune(d)) > maxDescription {
			t.Errorf("%s: %q", api, d)
		}
		if api == APIHarbor {
			continue
		}
		tags, err := Tags(testContext(t), parseRef(t, reg.Host+"/a/b"), speaks(reg.Host, api))
		if err != nil || tagNames(tags) != "v1" || !tags.Entries[0].Digest.IsZero() || tags.Entries[0].Size != 0 ||
			api == APIQuay && !tags.Entries[0].Updated.IsZero() {
			t.Errorf("%s: %+v, %v", api, tags, err)
		}
	}
}

func quoteJSON(s string) string {
	var b strings.Builder
	for _, r := range s {
		fmt.Fprintf(&b, `\u%04x`, r)
	}
	return `"` + b.String() + `"`
}

// TestDockerRegistry asks Debian's docker-registry, whose pages are small
// because its admin has them so: it refuses to be asked for larger ones.
func TestDockerRegistry(t *testing.T) {
	program, err := exec.LookPath("docker-registry")
	if err != nil {
		t.Skip("docker-registry is not installed")
	}
	host := startDockerRegistry(t, program)
	r, img := &testRegistry{host: host}, imageOf(t, tarOf(t, file("f", 0o644, "x")))
	for _, name := range []string{"bio/a:1.10", "bio/a:1.9", "bio/b:1", "bio/c:1", "other/d:1"} {
		r.push(t, name, img)
	}
	l, err := Search(testContext(t), Query{Registry: host, Namespace: "bio"}, Network{})
	if err != nil || foundNames(l, host) != "bio/a bio/b bio/c" {
		t.Errorf("%+v, %v", l, err)
	}
	l, err = Search(testContext(t), Query{Registry: host, Term: "d"}, Network{})
	if err != nil || foundNames(l, host) != "other/d" {
		t.Errorf("%+v, %v", l, err)
	}
	tags, err := Tags(testContext(t), parseRef(t, host+"/bio/a"), Network{})
	if err != nil || tagNames(tags) != "1.10 1.9" {
		t.Errorf("%+v, %v", tags, err)
	}
	_, err = Tags(testContext(t), parseRef(t, host+"/bio/none"), Network{})
	if err == nil || fault.Of(err) != fault.User {
		t.Errorf("no such repository: %v", err)
	}
}

func startDockerRegistry(t *testing.T, program string) (host string) {
	t.Helper()
	dir := t.TempDir()
	socket := httptest.NewUnstartedServer(nil) // a port that is free
	host = socket.Listener.Addr().String()
	socket.Listener.Close()
	config := fmt.Sprintf("version: 0.1\nlog: {level: error, accesslog: {disabled: true}}\nstorage: {filesystem: {rootdirectory: %s}}\nhttp: {addr: %q}\ncatalog: {maxentries: 2}\n", dir, host)
	path := filepath.Join(dir, "config.yml")
	if err := os.WriteFile(path, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cmd := exec.CommandContext(ctx, program, "serve", path)
	cmd.Stderr = t.Output()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cancel()
		var exit *exec.ExitError
		if err := cmd.Wait(); err != nil && !errors.As(err, &exit) {
			t.Error(err)
		}
	})
	waitFor(t, host)
	return host
}

// waitFor waits until a registry answers at host.
func waitFor(t *testing.T, host string) {
	t.Helper()
	ctx := testContext(t)
	for ctx.Err() == nil {
		if Reach(ctx, host, Network{}) == nil {
			return
		}
		if wait(ctx, 20*time.Millisecond) != nil {
			break
		}
	}
	t.Fatalf("%s does not answer", host)
}
