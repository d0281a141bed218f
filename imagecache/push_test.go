package imagecache

import (
	"context"
	"errors"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/google/go-containerregistry/pkg/v1/validate"

	"github.com/berth-hpc/berth/fault"
	"github.com/berth-hpc/berth/imagecache/store"
)

// gzipImage has two layers of a hundred kilobytes, in gzip.
func gzipImage(t *testing.T) v1.Image {
	t.Helper()
	var layers []v1.Layer
	for i, name := range []string{"a", "b"} {
		raw := tarOf(t, file(name, 0o644, noise(100_000, uint64(i))))
		layers = append(layers, layerOf(gzipped(t, raw), raw, types.OCILayer))
	}
	return imageOfLayers(t, layers...)
}

// an uploadLog counts what a registry is sent.
type uploadLog struct {
	mu      sync.Mutex
	bytes   int64
	mounted []string
	uploads int
}

// perRepository makes a registry that keeps blobs by repository, as real ones
// do: the one that tests use has each blob for all. mounts says whether it
// mounts.
func (l *uploadLog) perRepository(reg *testRegistry, mounts bool) {
	has := map[string]bool{}
	reg.onRequest(func(w http.ResponseWriter, req *http.Request) bool {
		l.mu.Lock()
		defer l.mu.Unlock()
		repo, rest, _ := strings.Cut(strings.TrimPrefix(req.URL.Path, "/v2/"), "/blobs/")
		digest := req.URL.Query().Get("digest")
		switch {
		case req.Method == http.MethodHead && strings.HasPrefix(rest, "sha256:") && strings.HasPrefix(repo, "to/") && !has[repo+rest]:
			w.WriteHeader(http.StatusNotFound)
			return true
		case req.Method == http.MethodPost && req.URL.Query().Get("mount") != "" && mounts:
			digest = req.URL.Query().Get("mount")
			l.mounted = append(l.mounted, req.URL.Query().Get("from"))
			has[repo+digest] = true
			w.Header().Set("Location", "/v2/"+repo+"/blobs/"+digest)
			w.WriteHeader(http.StatusCreated)
			return true
		case req.Method == http.MethodPost && rest == "uploads/" && req.URL.Query().Get("mount") != "":
			q := req.URL.Query()
			q.Del("mount")
			req.URL.RawQuery = q.Encode() // begins an upload instead
		case req.Method == http.MethodPatch:
			l.uploads++
			req.Body = &countedBody{req.Body, &l.bytes}
		case req.Method == http.MethodPut && digest != "":
			has[repo+digest] = true
		}
		return false
	})
}

type countedBody struct {
	io.ReadCloser
	n *int64
}

// Read implements io.Reader.
func (c *countedBody) Read(p []byte) (int, error) {
	n, err := c.ReadCloser.Read(p)
	atomic.AddInt64(c.n, int64(n))
	return n, err
}

func open(t *testing.T, ref Reference) *Original {
	t.Helper()
	im, err := OpenOriginal(testContext(t), ref, store.Digest{}, Platform{}, Network{})
	must(t, err)
	return im
}

// checkPushed reads an image back as another client does.
func checkPushed(t *testing.T, r *testRegistry, repoTag string, d store.Digest) {
	t.Helper()
	desc, err := remote.Get(r.tag(t, repoTag))
	must(t, err)
	im, err := desc.Image()
	must(t, err)
	must(t, validate.Image(im))
	if desc.Digest.String() != d.String() {
		t.Errorf("the registry has %v, want %v", desc.Digest, d)
	}
}

func TestPush(t *testing.T) {
	for _, test := range []struct {
		name                 string
		sameRegistry, mounts bool
		uploads, mounted     int
	}{
		{"to another registry", false, true, 4, 0}, // two layers, the changes, the config
		{"to the same registry", true, true, 2, 2},
		{"to one that mounts nothing", true, false, 4, 0},
	} {
		t.Run(test.name, func(t *testing.T) {
			from := newTestRegistry(t)
			ref := from.push(t, "from/x:1", gzipImage(t))
			to := from
			if !test.sameRegistry {
				to = newTestRegistry(t)
			}
			uploads := &uploadLog{}
			uploads.perRepository(to, test.mounts)
			changed, err := AddChanges(testContext(t), open(t, ref), Changes{Upper: newUpper(t), Temp: t.TempDir()})
			must(t, err)
			defer changed.Close()
			var last atomic.Pointer[Progress]
			opts := PushOptions{Progress: func(p Progress) { last.Store(&p) }}
			d, err := Push(testContext(t), changed, mustParse(t, to.host+"/to/x:2"), opts)
			must(t, err)
			if uploads.uploads != test.uploads || len(uploads.mounted) != test.mounted {
				t.Errorf("%d uploads, mounted from %q; want %d, %d", uploads.uploads, uploads.mounted, test.uploads, test.mounted)
			}
			if p := last.Load(); p == nil || p.Phase != PhasePush || p.Done != p.Total || p.Total < 200_000 {
				t.Errorf("the last progress is %+v", p)
			}
			sent := uploads.bytes
			if _, err := Push(testContext(t), changed, mustParse(t, to.host+"/to/x:3"), PushOptions{}); err != nil || uploads.bytes != sent {
				t.Errorf("the second time %d bytes more were sent: %v", uploads.bytes-sent, err)
			}
			to.onRequest(func(http.ResponseWriter, *http.Request) bool { return false })
			checkPushed(t, to, "to/x:2", d)
			checkPushed(t, to, "to/x:3", d)
		})
	}
}

func TestPushAll(t *testing.T) {
	from, to := newTestRegistry(t), newTestRegistry(t)
	index := indexOf(t, HostPlatform(), Platform{"linux", "s390x", ""})
	ref := from.pushIndex(t, "x:1", index)
	want, err := index.Digest()
	must(t, err)
	d, err := PushAll(testContext(t), ref, mustParse(t, to.host+"/y:1"), PushOptions{})
	if err != nil || d.String() != want.String() {
		t.Fatalf("%v, want %v: %v", d, want, err)
	}
	got, err := remote.Index(to.tag(t, "y:1"))
	must(t, err)
	must(t, validate.Index(got, validate.Fast))
	_, err = PushAll(testContext(t), from.push(t, "one:1", gzipImage(t)), mustParse(t, to.host+"/y:1"), PushOptions{})
	if fault.Of(err) != fault.User || fault.Remedy(err) != "leave --all out" {
		t.Errorf("%v (%s)", err, fault.Remedy(err))
	}
}

// TestPushRefused is about what registries say, and what then is said to whom.
func TestPushRefused(t *testing.T) {
	login := Network{Credentials: fixedLogin{"alice", "wrong"}}
	for _, test := range []struct {
		name, method, part string
		status             int
		net                Network
		cause, remedy      string
		blame              fault.Blame
	}{
		{"nobody may write", "POST", "uploads", 403, Network{}, "403 Forbidden", "log in as somebody who may write to x: berth login", fault.User},
		{"this login may not", "POST", "uploads", 403, login, "403 Forbidden", "this login may not write to x", fault.User},
		{"no such repository", "POST", "uploads", 404, Network{}, "404 Not Found", "check the spelling of x", fault.User},
		{"too large", "PATCH", "uploads", 413, Network{}, "413 Request Entity Too Large", "takes no layer of this size", fault.Site},
		{"a mirror", "POST", "uploads", 405, Network{}, "405 Method Not Allowed", "push to another registry", fault.Site},
		{"broken", "PATCH", "uploads", 500, Network{}, "500 Internal Server Error", "has trouble of its own", fault.Site},
		{"overloaded", "PUT", "manifests", 503, Network{}, "503 Service Unavailable", "has trouble of its own", fault.Site},
	} {
		t.Run(test.name, func(t *testing.T) {
			reg := newTestRegistry(t)
			reg.onRequest(func(w http.ResponseWriter, req *http.Request) bool {
				if req.URL.Path == "/v2/" && test.net.Credentials != nil {
					if _, _, ok := req.BasicAuth(); !ok {
						w.Header().Set("WWW-Authenticate", `Basic realm="test"`)
						w.WriteHeader(http.StatusUnauthorized)
						return true
					}
				}
				if req.Method == test.method && strings.Contains(req.URL.Path, test.part) {
					w.WriteHeader(test.status)
					return true
				}
				return false
			})
			net := test.net
			net.Retries, net.RetryWait = 1, time.Millisecond
			_, err := Push(testContext(t), gzipImage(t), mustParse(t, reg.host+"/x:1"), PushOptions{Network: net})
			if err == nil || !strings.Contains(err.Error(), test.cause) || !strings.Contains(fault.Remedy(err), test.remedy) || fault.Of(err) != test.blame {
				t.Errorf("%v (%s; %v)", err, fault.Remedy(err), fault.Of(err))
			}
			if err != nil && (strings.Contains(err.Error(), "wrong") || !strings.Contains(err.Error(), "push to "+reg.host+"/x:1")) {
				t.Errorf("%v", err)
			}
			reg.onRequest(func(http.ResponseWriter, *http.Request) bool { return false })
			if _, err := remote.Get(reg.tag(t, "x:1")); err == nil {
				t.Error("the tag is there")
			}
		})
	}
}

// A registry that wants a login gets the user's, by either way of asking; the
// layers of an original that is as private come from there with the same.
func TestPushLogsIn(t *testing.T) {
	login := fixedLogin{"me", "secret"}
	for name, ask := range map[string]func(host string) func(http.ResponseWriter, *http.Request) bool{
		"basic":  func(string) func(http.ResponseWriter, *http.Request) bool { return basicAuth(login) },
		"bearer": func(host string) func(http.ResponseWriter, *http.Request) bool { return bearerAuth(host, login) },
	} {
		t.Run(name, func(t *testing.T) {
			from, to := newTestRegistry(t), newTestRegistry(t)
			ref := from.push(t, "private/x:1", gzipImage(t))
			from.onRequest(ask(from.host))
			to.onRequest(ask(to.host))
			net := Network{Credentials: login}
			im, err := OpenOriginal(testContext(t), ref, store.Digest{}, Platform{}, net)
			must(t, err)
			d, err := Push(testContext(t), im, mustParse(t, to.host+"/private/y:1"), PushOptions{Network: net})
			must(t, err)
			_, err = Push(testContext(t), im, mustParse(t, to.host+"/private/y:2"), PushOptions{})
			if fault.Of(err) != fault.User || !strings.Contains(fault.Remedy(err), "log in") {
				t.Errorf("without a login: %v (%s)", err, fault.Remedy(err))
			}
			to.onRequest(func(http.ResponseWriter, *http.Request) bool { return false })
			checkPushed(t, to, "private/y:1", d)
		})
	}
}

// What goes wrong for a moment is tried again.
func TestPushTriesAgain(t *testing.T) {
	for _, fail := range []func(w http.ResponseWriter){
		func(w http.ResponseWriter) { w.WriteHeader(http.StatusServiceUnavailable) },
		func(w http.ResponseWriter) { w.WriteHeader(http.StatusTooManyRequests) },
		func(http.ResponseWriter) { panic(http.ErrAbortHandler) },
	} {
		reg := newTestRegistry(t)
		var failed sync.Map
		reg.onRequest(func(w http.ResponseWriter, req *http.Request) bool {
			kind := req.Method + " " + strings.Split(req.URL.Path, "/")[2]
			if _, seen := failed.LoadOrStore(kind, true); !seen && req.URL.Path != "/v2/" {
				fail(w)
			} else {
				return false
			}
			return true
		})
		net := Network{RetryWait: time.Millisecond}
		d, err := Push(testContext(t), gzipImage(t), mustParse(t, reg.host+"/x:1"), PushOptions{Network: net})
		if err != nil {
			t.Fatal(err)
		}
		checkPushed(t, reg, "x:1", d)
	}
}

// A registry that stops taking a layer, and one that never answers.
func TestPushStalls(t *testing.T) {
	for method, cause := range map[string]string{"PATCH": "the registry took nothing for 200ms", "POST": "timeout awaiting response headers"} {
		reg := newTestRegistry(t)
		end := make(chan struct{})
		reg.onRequest(func(_ http.ResponseWriter, req *http.Request) bool {
			if req.Method != method {
				return false
			}
			select {
			case <-end:
			case <-req.Context().Done():
			}
			panic(http.ErrAbortHandler)
		})
		raw := tarOf(t)
		im := imageOfLayers(t, endlessLayer{layerOf(raw, raw, types.OCIUncompressedLayer)})
		net := Network{StallTimeout: 200 * time.Millisecond, HeaderTimeout: 200 * time.Millisecond, Retries: -1}
		if method == "PATCH" {
			net.HeaderTimeout = testTimeout // the config's upload has an end, and waits for an answer
		}
		_, err := Push(testContext(t), im, mustParse(t, reg.host+"/x:1"), PushOptions{Network: net})
		close(end)
		if fault.Of(err) != fault.Site || fault.Remedy(err) == "" || !strings.Contains(err.Error(), cause) {
			t.Errorf("%s: %v (%s)", method, err, fault.Remedy(err))
		}
	}
}

// An endlessLayer has more bytes than sockets hold.
type endlessLayer struct{ v1.Layer }

// Size implements v1.Layer.
func (endlessLayer) Size() (int64, error) { return 1 << 40, nil }

// Compressed implements v1.Layer.
func (endlessLayer) Compressed() (io.ReadCloser, error) { return io.NopCloser(zeros{}), nil }

func TestPushInterrupted(t *testing.T) {
	reg := newTestRegistry(t)
	ctx, cancel := context.WithCancelCause(testContext(t))
	cause := errors.New("enough")
	reg.onRequest(func(_ http.ResponseWriter, req *http.Request) bool {
		if req.Method == http.MethodPatch {
			cancel(cause)
		}
		return false
	})
	if _, err := Push(ctx, gzipImage(t), mustParse(t, reg.host+"/x:1"), PushOptions{}); !errors.Is(err, cause) {
		t.Errorf("%v", err)
	}
	if _, err := remote.Get(reg.tag(t, "x:1")); err == nil {
		t.Error("the tag is there")
	}
}

// A source that breaks off in the middle is resumed; one that lies fails the
// push, and nothing is seen under the tag.
func TestPushFromABadSource(t *testing.T) {
	source := faultyRegistry(t, gzipImage(t))
	net := impatient()
	for how, good := range map[string]bool{"layer.cut.x1": true, "layer.flip": false} {
		ctx, to := testContext(t), newTestRegistry(t)
		im, err := OpenOriginal(ctx, mustParse(t, source.Host+"/faults/"+how+"/x:1"), store.Digest{}, Platform{}, net)
		must(t, err)
		_, err = Push(ctx, im, mustParse(t, to.host+"/y:"+how), PushOptions{Network: net})
		if (err == nil) != good {
			t.Errorf("%s: %v", how, err)
		}
		if _, err := remote.Get(to.tag(t, "y:"+how)); (err == nil) != good {
			t.Errorf("%s: the tag: %v", how, err)
		}
	}
}

// Pushing goes through the host's own CA and proxy, and not to mirrors.
func TestPushThroughTheNetworkOfPulls(t *testing.T) {
	address, ca := secureRegistry(t)
	proxy := startProxy(t, address)
	mirror := newTestRegistry(t)
	net := Network{Hosts: map[string]Host{"example.com": {CAFile: ca, Proxy: proxy.withLogin("user:geheim"), Mirrors: []string{mirror.host}}}}
	d, err := Push(testContext(t), gzipImage(t), mustParse(t, "example.com/pushed:1"), PushOptions{Network: net})
	must(t, err)
	if n := mirror.gets.Load(); n != 0 {
		t.Errorf("the mirror was asked %d times", n)
	}
	got, err := Resolve(testContext(t), mustParse(t, "example.com/pushed:1"), Platform{}, net)
	if err != nil || got != d {
		t.Errorf("%v, want %v: %v", got, d, err)
	}
	net.Hosts = map[string]Host{"example.com": {Proxy: proxy.withLogin("user:geheim")}}
	_, err = Push(testContext(t), gzipImage(t), mustParse(t, "example.com/pushed:2"), PushOptions{Network: net})
	if err == nil || !strings.Contains(fault.Remedy(err), "certificate") {
		t.Errorf("without the CA: %v (%s)", err, fault.Remedy(err))
	}
}

func TestPushTargets(t *testing.T) {
	for _, text := range []string{"oci:x", "docker-archive:x.tar", "./x", "quay.io/x@sha256:" + strings.Repeat("a", 64)} {
		if err := CheckPushTarget(mustParse(t, text)); fault.Of(err) != fault.User || fault.Remedy(err) == "" {
			t.Errorf("%s: %v", text, err)
		}
	}
	gone := filepath.Join(t.TempDir(), "gone.tar")
	_, err := OpenOriginal(testContext(t), mustParse(t, "docker-archive:"+gone), store.Digest{}, Platform{}, Network{})
	if !errors.Is(err, os.ErrNotExist) || fault.Of(err) != fault.User {
		t.Errorf("%v", err)
	}
}
