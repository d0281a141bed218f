package imagecache

import (
	"fmt"
	"regexp"
	"strings"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/berth-hpc/berth/fault"
	"github.com/berth-hpc/berth/testdata/registry/server"
)

// impatient is a network whose pauses tests can wait for. Only where a fault
// keeps a registry silent are answers waited for for less than any busy machine
// takes.
func impatient(faults ...string) Network {
	net := Network{RetryWait: time.Millisecond, HeaderTimeout: testTimeout, StallTimeout: testTimeout}
	if regexp.MustCompile(`silent|stall|trickle|slow`).MatchString(strings.Join(faults, " ")) {
		net.HeaderTimeout, net.StallTimeout, net.MinRate = time.Second, time.Second, 100_000
	}
	return net
}

// faultyRegistry serves img as x:1, and fails on purpose below faults/.
func faultyRegistry(t *testing.T, img v1.Image) *server.Started {
	t.Helper()
	reg := server.Start(t, server.Options{Wrap: server.Faults})
	r := &testRegistry{host: reg.Host}
	r.push(t, "x:1", img)
	reg.Forget()
	return reg
}

// TestFaults pulls from a registry that fails on purpose in every way it can,
// through both converters, and looks at what comes of it: the right tree, or
// an error that names registry, repository, cause and remedy, and nothing left.
func TestFaults(t *testing.T) {
	content := strings.Repeat("some kilobytes of text\n", 10_000)
	img := imageOf(t, tarOf(t, file("f", 0o644, content)), tarOf(t, file("g", 0o644, "small")))
	reg := faultyRegistry(t, img)
	for _, test := range []struct {
		how           string
		cause, remedy string // "" for a pull that ends well
		blame         fault.Blame
	}{
		{how: "none"},
		{how: "any.404", cause: "answered 404", remedy: "check the spelling of faults/any.404/x", blame: fault.User},
		{how: "blob.404", cause: "answered 404", remedy: "check the spelling", blame: fault.User},
		{how: "any.401", cause: "answered 401", remedy: "without a login", blame: fault.User},
		{how: "any.403", cause: "answered 403", remedy: "without a login", blame: fault.User},
		{how: "any.405", cause: "answered 405", remedy: "ask its admin", blame: fault.Site},
		{how: "any.407", cause: "answered 407", remedy: "network.proxy", blame: fault.Site},
		{how: "layer.429.x2"},
		{how: "layer.429.after0.x2"},
		{how: "tag.429.date0.x1"},
		{how: "layer.429", cause: "answered 429", remedy: "limits how often", blame: fault.Site},
		{how: "layer.429.after900", cause: "left alone for 15m0s", remedy: "limits how often", blame: fault.Site},
		{how: "layer.500.x4"},
		{how: "tag.503.x4"},
		{how: "layer.503", cause: "answered 503", remedy: "trouble of its own", blame: fault.Site},
		{how: "tag.504.x1__config.502.x1__layer.503.x1"},
		{how: "tag.silent.x1"},
		{how: "layer.silent.x1"},
		{how: "layer.silent", cause: "awaiting response headers", remedy: "does not answer in time", blame: fault.Site},
		{how: "any.slow.ms100"},
		{how: "tag.slow.ms9000", cause: "awaiting response headers", remedy: "does not answer in time", blame: fault.Site},
		{how: "layer.cut.x1"},
		{how: "layer.cut.x4"},
		{how: "layer.cut.at0.x3"},
		{how: "layer.cut.at1.x3"},
		{how: "layer.cut.at0", cause: "bytes: unexpected EOF", remedy: "breaks off", blame: fault.Site},
		{how: "layer.cut.x2__layer.norange"},
		{how: "layer.cut.x2__layer.whole"},
		{how: "layer.cut.x2__layer.otherpart", cause: "another part", remedy: "try again", blame: fault.Site},
		{how: "config.cut.x1"},
		{how: "config.cut.at0", cause: "unexpected EOF", remedy: "breaks off", blame: fault.Site},
		{how: "tag.cut.x1"},
		{how: "layer.stall.x1"},
		{how: "layer.stall.at0", cause: "no data arrived for too long (1s)", remedy: "network.stall_timeout", blame: fault.Site},
		{how: "layer.trickle.ms20.x1"},
		{how: "layer.trickle.ms20", cause: "data arrived too slowly (less than 100000 bytes/s)", remedy: "network.min_rate", blame: fault.Site},
		{how: "layer.flip", cause: ": got sha256:", remedy: reg.Host + " or a proxy on the way alters", blame: fault.Site},
		{how: "config.flip", cause: "verify config: got sha256:", remedy: reg.Host + " or a proxy on the way alters", blame: fault.Site},
		{how: "manifest.flip", cause: "verify manifest: got sha256:", remedy: reg.Host + " or a proxy on the way alters", blame: fault.Site},
		{how: "layer.short", cause: "verify layer", remedy: "truncates", blame: fault.Site},
		{how: "layer.long", cause: "verify layer", remedy: "alters", blame: fault.Site},
		{how: "layer.nolength"},
		{how: "layer.nolength.at1000.x1"},
		{how: "layer.nolength.at1000", cause: "bytes: unexpected EOF", remedy: "breaks off", blame: fault.Site},
		{how: "layer.redirect.same"},
		{how: "layer.redirect.other"},
		{how: "any.login__layer.redirect.other", cause: "401", remedy: "private", blame: fault.User},
		{how: "any.token__layer.redirect.other"},
		{how: "layer.redirect.loop", cause: "redirects in circles", remedy: "where it keeps its layers", blame: fault.Site},
		{how: "layer.redirect.expired2"},
		{how: "layer.redirect.expired99", cause: "403", remedy: "leads to a place that does not serve it", blame: fault.Site},
		{how: "tag.type"},
		{how: "tag.html", cause: "manifest is not JSON", remedy: "build or push", blame: fault.User},
		{how: "layer.html", cause: "verify layer", remedy: "alters", blame: fault.Site},
		{how: "tag.platform", cause: "the image is for linux/s390x", remedy: "use an image built for", blame: fault.User},
		{how: "any.token"},
		{how: "any.token.uses1"},
		{how: "any.token.uses2__layer.cut.x3"},
		{how: "any.token.login", cause: "answered 401", remedy: "private", blame: fault.User},
		{how: "any.token.down", cause: "log in: 127.0.0.1", remedy: "trouble of its own", blame: fault.Site},
	} {
		for _, c := range []Converter{Stream{}, Umoci{}} {
			t.Run(test.how+"/"+c.Name(), func(t *testing.T) {
				t.Parallel()
				reg := reg
				if strings.Contains(test.how, "token") { // it is the whole registry that wants them
					reg = faultyRegistry(t, img)
				}
				// Each converter has a repository of its own, so that each is struck.
				ref := mustParse(t, fmt.Sprintf("%s/faults/%s/x:1", reg.Host, test.how))
				if c.Streams() {
					ref = mustParse(t, fmt.Sprintf("%s/faults/%s__none/x:1", reg.Host, test.how))
				}
				s := openStore(t)
				im, err := Pull(testContext(t), s, ref, FetchOptions{Network: impatient(test.how), Converter: c})
				checkNoLeftovers(t, s.Root())
				if test.cause == "" {
					if err != nil {
						t.Fatalf("%v, remedy %q", err, fault.Remedy(err))
					}
					if tree := readTree(t, im.Rootfs()); tree["f"] != "file 0644 "+content || tree["g"] != "file 0644 small" {
						t.Error("another tree")
					}
					return
				}
				checkMessage(t, err, ref, test.cause, strings.ReplaceAll(test.remedy, "/x", ""), test.blame)
			})
		}
	}
}

// checkMessage looks at what a user reads of err.
func checkMessage(t *testing.T, err error, ref Reference, cause, remedy string, blame fault.Blame) {
	t.Helper()
	if err == nil {
		t.Fatal("no error")
	}
	if fault.Of(err) != blame || !strings.Contains(err.Error(), cause) || !strings.Contains(fault.Remedy(err), remedy) {
		t.Errorf("got %v (%v), remedy %q", err, fault.Of(err), fault.Remedy(err))
	}
	for _, part := range []string{ref.Host(), ref.Repository()} {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("%q is missing in %v", part, err)
		}
	}
	for _, text := range []string{err.Error(), fault.Remedy(err)} {
		if strings.ContainsAny(text, "\n\x1b") || strings.Contains(text, "hush") || strings.Contains(text, "geheim") {
			t.Errorf("%q is not fit to be shown", text)
		}
	}
}

// TestTagMoves: between two requests a tag is given to another image. The pull
// brings the one that was resolved, whole.
func TestTagMoves(t *testing.T) {
	img := imageOf(t, tarOf(t, file("f", 0o644, "first")))
	reg := faultyRegistry(t, img)
	r := &testRegistry{host: reg.Host}
	r.push(t, "x:moved", imageOf(t, tarOf(t, file("f", 0o644, "second"))))
	for i, want := range []string{"first", "second", "first"} {
		im, err := Pull(testContext(t), openStore(t), mustParse(t, reg.Host+"/faults/tag.moves/x:1"), FetchOptions{})
		if err != nil {
			t.Fatal(err)
		}
		if got := readTree(t, im.Rootfs())["f"]; got != "file 0644 "+want {
			t.Errorf("pull %d: %s", i, got)
		}
	}
}

// TestResumeAsksForTheRest counts what was sent again after cuts.
func TestResumeAsksForTheRest(t *testing.T) {
	content := strings.Repeat("0123456789abcdef", 4<<16) // 4 MiB
	raw := tarOf(t, file("f", 0o644, content))
	for _, c := range []Converter{Stream{}, Umoci{}} {
		reg := faultyRegistry(t, imageOf(t, raw))
		ref := mustParse(t, reg.Host+"/faults/layer.cut.at1048576.x3/x:1")
		if _, err := Pull(testContext(t), openStore(t), ref, FetchOptions{Network: impatient(), Converter: c}); err != nil {
			t.Fatal(err)
		}
		var sent int64
		for _, r := range reg.Requests() {
			if strings.Contains(r.Path, "/blobs/") {
				sent += r.Bytes
			}
		}
		if sent > int64(len(raw))+64<<10 {
			t.Errorf("%s: %d bytes were sent of %d", c.Name(), sent, len(raw))
		}
	}
}

// TestNoRetries: a site may want a failure at once.
func TestNoRetries(t *testing.T) {
	reg := faultyRegistry(t, imageOf(t, tarOf(t, file("f", 0o644, "x"))))
	net := impatient()
	net.Retries = -1
	_, err := Resolve(testContext(t), mustParse(t, reg.Host+"/faults/any.503/x:1"), Platform{}, net)
	if err == nil || reg.Count("GET", "/manifests/") != 1 {
		t.Errorf("%d requests, %v", reg.Count("GET", "/manifests/"), err)
	}
}
