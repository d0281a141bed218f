package imagecache

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/berth-hpc/berth/fault"
	"github.com/berth-hpc/berth/imagecache/credentials"
)

// knownLogins answers with what it has for HOST or USER@HOST, and notes what
// it was asked.
type knownLogins struct {
	logins map[string]credentials.Login
	asked  []credentials.Target
	err    error
}

func (k *knownLogins) Login(_ context.Context, t credentials.Target) (credentials.Login, error) {
	k.asked = append(k.asked, t)
	if t.User != "" {
		return k.logins[t.User+"@"+t.Registry], k.err
	}
	return k.logins[t.Registry], k.err
}

func loginOf(name, password string) credentials.Login {
	return credentials.NewLogin(name, credentials.NewSecret(password), "a test's file")
}

// The name before the @ of a reference reaches the keychain, for the registry
// itself but not for its mirrors.
func TestUserOfReference(t *testing.T) {
	r, mirror := newTestRegistry(t), newTestRegistry(t)
	r.push(t, "team/x:1", imageOf(t, tarOf(t, file("f", 0o644, "x"))))
	for _, reg := range []*testRegistry{r, mirror} {
		reg.onRequest(basicAuth(fixedLogin{"bob", "secret"}))
	}
	known := &knownLogins{logins: map[string]credentials.Login{r.host: loginOf("alice", "other"), "bob@" + r.host: loginOf("bob", "secret")}}
	net := Network{Credentials: Keychain(known), Hosts: map[string]Host{r.host: {Mirrors: []string{mirror.host + "/copies"}}}}
	if _, err := Resolve(testContext(t), mustParse(t, "bob@"+r.host+"/team/x:1"), HostPlatform(), net); err != nil {
		t.Error(err)
	}
	want := []credentials.Target{{Registry: mirror.host, Repository: "copies/team/x"}, {Registry: r.host, Repository: "team/x", User: "bob"}}
	if fmt.Sprint(known.asked) != fmt.Sprint(want) {
		t.Errorf("asked for %v, want %v", known.asked, want)
	}
	_, err := Resolve(testContext(t), mustParse(t, r.host+"/team/x:1"), HostPlatform(), net)
	if err == nil || fault.Of(err) != fault.User || !strings.Contains(err.Error(), "401 Unauthorized to your login (alice, from a test's file)") ||
		!strings.Contains(fault.Remedy(err), "this login has expired, is wrong, or has no right to team/x: berth login "+r.host) {
		t.Errorf("got %v, remedy %q", err, fault.Remedy(err))
	}
}

// Docker's registry has another name for the library than for users.
func TestKeychainOfDockerHub(t *testing.T) {
	known := &knownLogins{}
	e, err := newEndpoint("docker.io", "library/debian", Host{}, Network{Credentials: Keychain(known)})
	if err != nil {
		t.Fatal(err)
	}
	if auth, err := e.authenticator(testContext(t), stepCredentials); auth != nil || err != nil {
		t.Errorf("%v, %v", auth, err)
	}
	if want := (credentials.Target{Registry: "docker.io", Repository: "library/debian"}); len(known.asked) != 1 || known.asked[0] != want {
		t.Errorf("asked for %v", known.asked)
	}
}

// Logins are not looked for where nobody needs one.
func TestLoginsAreForPrivateImages(t *testing.T) {
	r := newTestRegistry(t)
	public := r.push(t, "public:1", imageOf(t, tarOf(t, file("f", 0o644, "x"))))
	known := &knownLogins{}
	for _, auth := range []func(http.ResponseWriter, *http.Request) bool{
		func(http.ResponseWriter, *http.Request) bool { return false }, bearerAuth(r.host, fixedLogin{"me", "secret"}),
	} {
		r.onRequest(auth)
		if _, err := Resolve(testContext(t), public, HostPlatform(), Network{Credentials: Keychain(known)}); err != nil {
			t.Error(err)
		}
	}
	if len(known.asked) > 0 {
		t.Errorf("asked for %v", known.asked)
	}
}

// Why no login was found is said beside what the registry said.
func TestLoginLookupFails(t *testing.T) {
	r := newTestRegistry(t)
	private := r.push(t, "private:1", imageOf(t, tarOf(t, file("f", 0o644, "x"))))
	r.onRequest(basicAuth(fixedLogin{"me", "secret"}))
	known := &knownLogins{err: &fault.Error{Op: "read", Arg: "auth.json", Blame: fault.User, Remedy: "correct it", Err: errors.New("broken")}}
	_, err := Resolve(testContext(t), private, HostPlatform(), Network{Credentials: Keychain(known)})
	if err == nil || !strings.Contains(err.Error(), "401 Unauthorized; look up your login: read auth.json: broken") || fault.Remedy(err) != "correct it" {
		t.Errorf("got %v, remedy %q", err, fault.Remedy(err))
	}
}

func TestCheckLogin(t *testing.T) {
	r := newTestRegistry(t)
	right := fixedLogin{"me", "secret"}
	open := func(http.ResponseWriter, *http.Request) bool { return false }
	forbidden := func(w http.ResponseWriter, _ *http.Request) bool { w.WriteHeader(http.StatusForbidden); return true }
	down := func(w http.ResponseWriter, _ *http.Request) bool { w.WriteHeader(http.StatusBadGateway); return true }
	for _, tt := range []struct {
		name     string
		registry func(http.ResponseWriter, *http.Request) bool
		password string
		checked  bool
		blame    fault.Blame
		err      string
	}{
		{"basic", basicAuth(right), "secret", true, 0, ""},
		{"basic, wrong", basicAuth(right), "wr0ng", false, fault.User, "401 Unauthorized to your login (me, "},
		{"bearer", bearerAuth(r.host, right), "secret", true, 0, ""},
		{"bearer, wrong", bearerAuth(r.host, right), "wr0ng", false, fault.User, "401 Unauthorized to your login (me, "},
		{"open", open, "wr0ng", false, 0, ""},
		{"forbidden", forbidden, "secret", false, fault.User, "403 Forbidden"},
		{"down", down, "secret", false, fault.Site, "502"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r.onRequest(tt.registry)
			checked, err := CheckLogin(testContext(t), r.host, loginOf("me", tt.password), Network{})
			if checked != tt.checked || (err == nil) != (tt.err == "") {
				t.Fatalf("checked %v, %v", checked, err)
			}
			if err != nil && (fault.Of(err) != tt.blame || fault.Remedy(err) == "" || !strings.Contains(err.Error(), tt.err) || strings.Contains(err.Error(), tt.password)) {
				t.Errorf("got %v (%v), remedy %q", err, fault.Of(err), fault.Remedy(err))
			}
		})
	}
	if _, err := CheckLogin(testContext(t), freePort(t), loginOf("me", "secret"), Network{}); fault.Of(err) != fault.Site || fault.Remedy(err) == "" {
		t.Errorf("nobody listens: %v", err)
	}
}

// A token service that repeats what it was sent does not get it printed.
func TestTokenServiceThatRepeats(t *testing.T) {
	r := newTestRegistry(t)
	private := r.push(t, "private:1", imageOf(t, tarOf(t, file("f", 0o644, "x"))))
	r.onRequest(func(w http.ResponseWriter, req *http.Request) bool {
		_, password, sent := req.BasicAuth()
		if req.URL.Path != "/token" || !sent {
			return bearerAuth(r.host, fixedLogin{"me", "secret"})(w, req)
		}
		w.WriteHeader(http.StatusBadRequest)
		fmt.Fprintf(w, `{"errors":[{"code":"DENIED","message":"no user with %s"}]}`, password)
		return true
	})
	known := &knownLogins{logins: map[string]credentials.Login{r.host: loginOf("me", "wr0ng")}}
	_, err := Resolve(testContext(t), private, HostPlatform(), Network{Credentials: Keychain(known)})
	if err == nil || strings.Contains(err.Error(), "wr0ng") || !strings.Contains(err.Error(), "400 Bad Request to your login") || fault.Of(err) != fault.User {
		t.Errorf("got %v", err)
	}
}
