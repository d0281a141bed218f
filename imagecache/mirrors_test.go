package imagecache

import (
	"context"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/berth-hpc/berth/fault"
)

// mirrored says that the registry at host has these mirrors.
func mirrored(host string, mirrors ...string) Network {
	net := impatient(mirrors...)
	net.Hosts = map[string]Host{host: {Mirrors: mirrors}}
	return net
}

// TestMirrorFails: whatever is wrong with a mirror, the registry's image comes,
// and the mirror is not asked once per layer.
func TestMirrorFails(t *testing.T) {
	content := strings.Repeat("the right bytes\n", 10_000)
	img := imageOf(t, tarOf(t, file("f", 0o644, content)), tarOf(t, file("g", 0o644, "g")), tarOf(t, file("h", 0o644, "h")))
	for _, test := range []struct {
		how      string
		most     int    // requests that the mirror may get, of a pull and its resolve
		distrust bool   // it sent wrong bytes
		source   string // who is recorded: mirror or origin
	}{
		{"any.404", 2, false, "origin"},
		{"any.401", 4, false, "origin"},
		{"any.429", 2, false, "origin"},
		{"any.500", 2, false, "origin"},
		{"any.silent", 2, false, "origin"},
		{"tag.404", 20, false, "mirror"},
		{"blob.404", 3, false, "mirror"},
		{"layer.silent", 6, false, "mirror"},
		{"layer.stall", 6, false, "mirror"},
		{"layer.cut", 6, false, "mirror"},
		{"layer.trickle.ms20", 6, false, "mirror"},
		{"layer.flip", 6, true, "mirror"},
		{"layer.short", 6, true, "mirror"},
		{"layer.html", 6, true, "mirror"},
		{"config.flip", 3, true, "mirror"},
		{"manifest.flip", 2, true, "origin"},
		{"manifest.html", 2, true, "origin"},
	} {
		for _, c := range []Converter{Stream{}, Umoci{}} {
			t.Run(test.how+"/"+c.Name(), func(t *testing.T) {
				t.Parallel()
				mirror, origin := faultyRegistry(t, img), faultyRegistry(t, img)
				ref := mustParse(t, origin.Host+"/x:1")
				s := openStore(t)
				opts := FetchOptions{Network: mirrored(origin.Host, mirror.Host+"/faults/"+test.how), Converter: c, Parallel: 1}
				im, err := Pull(testContext(t), s, ref, opts)
				if err != nil {
					t.Fatal(err)
				}
				tree := readTree(t, im.Rootfs())
				if tree["f"] != "file 0644 "+content || tree["g"] != "file 0644 g" || tree["h"] != "file 0644 h" {
					t.Error("another tree")
				}
				checkNoLeftovers(t, s.Root())
				if n := mirror.Count("GET", "/x/"); n == 0 || n > test.most {
					t.Errorf("the mirror was asked %d times", n)
				}
				rec, err := im.Record()
				if want := map[string]string{"mirror": mirror.Host, "origin": origin.Host}[test.source]; err != nil || rec.Source != want {
					t.Errorf("source %s, want %s", rec.Source, want)
				}
			})
		}
	}
}

// TestMirrorAndRegistryFail names both, and what each did.
func TestMirrorAndRegistryFail(t *testing.T) {
	img := imageOf(t, tarOf(t, file("f", 0o644, strings.Repeat("x", 100_000))))
	for _, test := range []struct{ mirror, origin, cause, remedy string }{
		{"any.503", "any.404", "ORIGIN answered 404 Not Found (TEST: refused on purpose); the mirror MIRROR: MIRROR answered 503", "check the spelling"},
		{"any.404", "any.503", "ORIGIN answered 503 Service Unavailable (TEST: refused on purpose); the mirror MIRROR: MIRROR answered 404", "trouble of its own"},
		{"layer.flip", "layer.flip", "as named, from ORIGIN", "ORIGIN or a proxy on the way"},
	} {
		t.Run(test.mirror+"/"+test.origin, func(t *testing.T) {
			mirror, origin := faultyRegistry(t, img), faultyRegistry(t, img)
			ref := mustParse(t, origin.Host+"/faults/"+test.origin+"/x:1")
			if test.mirror == "layer.flip" { // in the mirror the repository has the whole of its name
				r := &testRegistry{host: mirror.Host}
				r.push(t, "faults/"+test.origin+"/x:1", img)
			}
			net := mirrored(origin.Host, mirror.Host+"/faults/"+test.mirror)
			_, err := Pull(testContext(t), openStore(t), ref, FetchOptions{Network: net})
			named := strings.NewReplacer("ORIGIN", origin.Host, "MIRROR", mirror.Host)
			blame := fault.Site
			if test.origin == "any.404" {
				blame = fault.User
			}
			checkMessage(t, err, ref, named.Replace(test.cause), named.Replace(test.remedy), blame)
		})
	}
}

// TestDeadMirrorLeavesTime: submission waits 3 s in all. A mirror that swallows
// everything must not take all of that.
func TestDeadMirrorLeavesTime(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0") // accepts, and never answers
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	origin := faultyRegistry(t, imageOf(t, tarOf(t, file("f", 0o644, "x"))))
	net := mirrored(origin.Host, l.Addr().String())
	net.HeaderTimeout = time.Minute
	ctx, cancel := context.WithTimeout(testContext(t), 8*time.Second)
	defer cancel()
	if _, err := Resolve(ctx, mustParse(t, origin.Host+"/x:1"), Platform{}, net); err != nil {
		t.Error(err)
	}
}

// TestMirrorOfDockerHub: the repository keeps its library/.
func TestMirrorOfDockerHub(t *testing.T) {
	mirror := faultyRegistry(t, imageOf(t, tarOf(t, file("f", 0o644, "x"))))
	r := &testRegistry{host: mirror.Host}
	r.push(t, "hub/library/debian:12", imageOf(t, tarOf(t, file("f", 0o644, "debian"))))
	for _, name := range []string{"debian:12", "docker.io/debian:12", "docker.io/library/debian:12", "index.docker.io/debian:12", "registry-1.docker.io/library/debian:12"} {
		im, err := Pull(testContext(t), openStore(t), mustParse(t, name), FetchOptions{Network: mirrored("docker.io", mirror.Host+"/hub")})
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if tree := readTree(t, im.Rootfs()); tree["f"] != "file 0644 debian" {
			t.Errorf("%s: %v", name, tree)
		}
	}
}
