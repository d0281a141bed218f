package imagecache

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/berth-hpc/berth/imagecache/credentials"
)

// noting counts the requests that show a login, by what they show.
func noting(shown map[string]int, next func(http.ResponseWriter, *http.Request) bool) func(http.ResponseWriter, *http.Request) bool {
	return func(w http.ResponseWriter, r *http.Request) bool {
		if u, p, ok := r.BasicAuth(); ok {
			shown[u+":"+p]++
		}
		return next(w, r)
	}
}

// A mirror that wants a login gets the site's, or the user's for the registry if
// the site says that it takes those, and nothing of the user's else: neither
// the registry's login nor what the user has for other hosts. Names of users in
// a reference are the registry's.
func TestMirrorLogins(t *testing.T) {
	user, site := fixedLogin{"alice", "alice-s3cret"}, fixedLogin{"robot", "site-s3cret"}
	for _, tt := range []struct {
		name   string
		host   func(mirror string) Host // what is set for the mirror
		takes  fixedLogin               // what the mirror lets in
		ref    string
		shown  string // to the mirror
		served bool   // by the mirror
	}{
		{"nothing set", func(string) Host { return Host{} }, user, "", "map[]", false},
		{"the site's", func(m string) Host {
			return Host{MirrorLogins: Keychain(&knownLogins{logins: map[string]credentials.Login{m: loginOf(site.user, site.password)}})}
		}, site, "", "map[robot:site-s3cret:1]", true},
		{"the site's is refused", func(m string) Host {
			return Host{MirrorLogins: Keychain(&knownLogins{logins: map[string]credentials.Login{m: loginOf(site.user, "old")}})}
		}, site, "", "map[robot:old:1]", false},
		{"the site's cannot be read", func(string) Host {
			return Host{MirrorLogins: Keychain(&knownLogins{err: fmt.Errorf("broken")})}
		}, site, "", "map[]", false},
		{"it takes users'", func(string) Host { return Host{TakesLogins: true} }, user, "", "map[alice:alice-s3cret:1]", true},
		{"it takes users', by name", func(string) Host { return Host{TakesLogins: true} }, user, "alice@", "map[alice:alice-s3cret:1]", true},
		{"the site's goes first", func(m string) Host {
			return Host{TakesLogins: true, MirrorLogins: Keychain(&knownLogins{logins: map[string]credentials.Login{m: loginOf(site.user, site.password)}})}
		}, site, "", "map[robot:site-s3cret:1]", true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			origin, mirror := newTestRegistry(t), newTestRegistry(t)
			img := imageOf(t, tarOf(t, file("f", 0o644, "x")))
			origin.push(t, "team/x:1", img)
			mirror.push(t, "copies/team/x:1", img)
			toMirror, toOrigin := map[string]int{}, map[string]int{}
			mirror.onRequest(noting(toMirror, basicAuth(tt.takes)))
			origin.onRequest(noting(toOrigin, basicAuth(user)))
			known := &knownLogins{logins: map[string]credentials.Login{
				origin.host: loginOf(user.user, user.password), "alice@" + origin.host: loginOf(user.user, user.password),
			}}
			h := tt.host(mirror.host)
			net := Network{Credentials: Keychain(known), Hosts: map[string]Host{
				origin.host: {Mirrors: []string{mirror.host + "/copies"}}, mirror.host: h,
			}}
			if _, err := Resolve(testContext(t), mustParse(t, tt.ref+origin.host+"/team/x:1"), HostPlatform(), net); err != nil {
				t.Fatal(err)
			}
			if got := fmt.Sprint(toMirror); once(got) != tt.shown || (len(toOrigin) == 0) != tt.served {
				t.Errorf("the mirror was shown %s, want %s; the registry %v", got, tt.shown, toOrigin)
			}
			if strings.Contains(fmt.Sprint(toOrigin), "robot") {
				t.Errorf("the registry was shown %v", toOrigin)
			}
		})
	}
}

// once forgets how often.
func once(counts string) string {
	for n := 2; n < 20; n++ {
		counts = strings.ReplaceAll(counts, fmt.Sprintf(":%d]", n), ":1]")
	}
	return counts
}

// The site's login to a mirror is for a mirror: where somebody names that host
// itself, as registry, it is not shown.
func TestMirrorLoginIsForMirrors(t *testing.T) {
	mirror := newTestRegistry(t)
	ref := mirror.push(t, "team/x:1", imageOf(t, tarOf(t, file("f", 0o644, "x"))))
	shown := map[string]int{}
	mirror.onRequest(noting(shown, basicAuth(fixedLogin{"robot", "site-s3cret"})))
	site := Keychain(&knownLogins{logins: map[string]credentials.Login{mirror.host: loginOf("robot", "site-s3cret")}})
	net := Network{Hosts: map[string]Host{mirror.host: {MirrorLogins: site, TakesLogins: true}}}
	if d, err := Resolve(testContext(t), ref, HostPlatform(), net); err == nil || len(shown) > 0 {
		t.Errorf("got %v, shown %v", d, shown)
	}
}
