package server

import (
	"net/http"
	"strings"
	"sync"
)

// faultPrefix begins the path of a request that is to fail.
const faultPrefix = "/v2/faults/"

// Login is what repositories below faults/auth want, in clear: a name, a
// colon, a password.
const Login = "alice:secret"

// Faults is a Wrap for Options: pulls from the repository faults/HOW/REPO are
// pulls from REPO that go wrong as HOW says, and all others go through.
//
// HOW is one fault, or several with __ between them. A fault is a TARGET, a
// KIND and ARGUMENTS, with dots between them. It strikes whatever the target
// names: any, tag (a manifest by tag), manifest (by digest), blob, config or
// layer. The argument xN lets it strike the first N times only, counted for
// each path; without it, it strikes always.
//
//	KIND            what happens; arguments in brackets
//	NNN             that status [after5: Retry-After: 5; date5: the same as a date]
//	silent          no answer, not even headers
//	slow            the answer begins late [ms500: by that; 200 ms]
//	cut             the connection is closed in the middle [at1000: after so many bytes]
//	stall           nothing more comes after the middle [at1000]
//	trickle         one byte at a time [ms100: with such pauses; 1 s]
//	flip            one bit is another, so the digest is wrong
//	short           the last byte is missing and the length says so
//	long            there is a byte too much
//	nolength        no length is announced, the connection's end is the end [at1000: too early]
//	norange         416 to who asks for a part
//	whole           all of it to who asks for a part
//	otherpart       another part than was asked for
//	redirect        to a store of blobs that refuses logins: [same: on this
//	                host; other: on another name of it; http: in clear; loop: to
//	                itself; expired1: the first address has expired; inward: to
//	                the cloud's metadata address]
//	type            the content type is that of a web page
//	html            a web page, with status 200
//	moves           every other request for a tag is answered with the tag "moved"
//	platform        the tag names an index without an image for this machine
//	login           401, unless the request has Login by basic authentication
//	token           401, unless it has a bearer token, which anybody gets from
//	                here [uses3: good for so many requests; login: only with Login;
//	                down: the service that gives tokens answers 503].
//	                From then on /v2/ itself says where tokens are given
//
// Some combinations have older, shorter names:
//
//	status-NNN      any.NNN; 429 says Retry-After: 1
//	manifest-NNN    blob.NNN: the manifest is there, but no layer
//	auth            any.login
//	platform        tag.platform
//	layer-cut, layer-stall, layer-flip
func Faults(next http.Handler) http.Handler {
	return &faulty{next: next, struck: map[string]int{}, tokens: map[string]int{}}
}

type faulty struct {
	next http.Handler

	mu     sync.Mutex
	struck map[string]int // how often a fault did, by fault and path
	tokens map[string]int // how many requests each is still good for
	issued int

	challenge string // once a token was missing, what /v2/ answers with
}

// ServeHTTP implements http.Handler.
func (f *faulty) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	switch {
	case strings.HasPrefix(req.URL.Path, tokenPrefix):
		f.giveToken(w, req)
		return
	case req.URL.Path == "/v2/" && f.challenged(w):
		return
	case strings.HasPrefix(req.URL.Path, storePrefix):
		f.serveStored(w, req)
		return
	}
	rest, ok := strings.CutPrefix(req.URL.Path, faultPrefix)
	how, repo, _ := strings.Cut(rest, "/")
	if !ok || repo == "" {
		f.next.ServeHTTP(w, req)
		return
	}
	inner := req.Clone(req.Context())
	inner.URL.Path = "/v2/" + repo
	f.fail(w, &request{Request: inner, outer: req.URL.Path}, parseFaults(how))
}

// A request is on its way to the registry behind the faults.
type request struct {
	*http.Request
	outer  string // the path that the client asked for
	answer *answer
}

// fail applies the first fault that strikes and says so by answering.
func (f *faulty) fail(w http.ResponseWriter, req *request, faults []fault) {
	for _, fault := range faults {
		if !f.hits(req, fault.target) {
			continue
		}
		if fault.times > 0 && !f.strikes(fault, req) {
			continue
		}
		if f.strike(w, req, fault) {
			return
		}
	}
	f.next.ServeHTTP(w, req.Request)
}

// strikes counts.
func (f *faulty) strikes(fault fault, req *request) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	key := fault.text + " " + req.outer
	f.struck[key]++
	return f.struck[key] <= fault.times
}

// strike does what a fault says. It returns false when the fault lets this
// request through.
func (f *faulty) strike(w http.ResponseWriter, req *request, fault fault) bool {
	if status := fault.status(); status > 0 {
		refuse(w, status, fault.retryAfter())
		return true
	}
	switch fault.kind {
	case "login":
		return f.wantLogin(w, req)
	case "token":
		return f.wantToken(w, req, fault)
	case "redirect":
		return f.redirect(w, req, fault)
	case "platform":
		return f.otherPlatform(w, req)
	case "moves":
		return f.move(w, req, fault)
	case "silent":
		<-req.Context().Done()
		panic(http.ErrAbortHandler) // closes the connection
	case "slow":
		pause(req, fault.milliseconds(200))
		return false
	}
	return f.spoil(w, req, fault)
}
