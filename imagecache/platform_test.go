package imagecache

import (
	"strings"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"

	"github.com/berth-hpc/berth/fault"
)

func TestParsePlatform(t *testing.T) {
	for in, want := range map[string]string{
		"": HostPlatform().String(), "arm64": "linux/arm64", "linux/arm64": "linux/arm64", "linux/arm64/v8": "linux/arm64", "arm64/v8": "linux/arm64",
		"aarch64": "linux/arm64", "x86_64": "linux/amd64", "linux/x86-64": "linux/amd64", "AMD64": "linux/amd64", "amd64/v1": "linux/amd64",
		"amd64/v2": "linux/amd64/v2", "arm/v7": "linux/arm/v7", "armhf": "linux/arm/v7", "armel": "linux/arm/v6", "i686": "linux/386",
		"linux/newarch": "linux/newarch", "windows/amd64": "windows/amd64",
	} {
		if p, err := ParsePlatform(in); err != nil || p.String() != want {
			t.Errorf("%q: %v, %v, want %s", in, p, err, want)
		}
	}
	for _, in := range []string{"linux", "newarch", "/", "linux/", "/amd64", "linux/amd64/", "linux/arm/v7/x", "a\x1b/b/c/d"} {
		_, err := ParsePlatform(in)
		if fault.Of(err) != fault.User || fault.Remedy(err) == "" || strings.Contains(err.Error(), "\x1b") {
			t.Errorf("%q: %v", in, err)
		}
	}
}

// TestChooseVariant: which of an index's images suits a platform.
func TestChooseVariant(t *testing.T) {
	for _, test := range []struct{ have, ask, want string }{
		{"arm/v5 arm/v6 arm/v7", "arm/v7", "linux/arm/v7"},
		{"arm/v5 arm/v6", "arm/v7", "linux/arm/v6"},
		{"arm/v7 arm64/v8", "arm/v6", ""},
		{"arm/v7 arm/v5", "arm", "linux/arm/v5"},
		{"amd64/v3 amd64 amd64/v2", "amd64", "linux/amd64"},
		{"amd64/v3 amd64/v2", "amd64", "linux/amd64/v2"},
		{"amd64/v3 amd64 amd64/v2", "amd64/v2", "linux/amd64/v2"},
		{"arm64", "arm64/v8", "linux/arm64"},
		{"arm64/v8", "arm64", "linux/arm64/v8"},
		{"arm64/v9", "arm64/v8", "linux/arm64/v9"}, // v8 says nothing
		{"amd64", "arm64", ""},
		{"windows/amd64 linux/amd64", "amd64", "linux/amd64"},
	} {
		var have []v1.Descriptor
		for s := range strings.FieldsSeq(test.have) {
			parts := strings.Split(s, "/")
			if parts[0] != "windows" && parts[0] != "linux" {
				parts = append([]string{"linux"}, parts...)
			}
			have = append(have, v1.Descriptor{Platform: &v1.Platform{OS: parts[0], Architecture: parts[1], Variant: strings.Join(parts[2:], "")}})
		}
		p, err := ParsePlatform(test.ask)
		must(t, err)
		got, err := choose(have, p)
		switch {
		case test.want == "" && (fault.Of(err) != fault.User || !strings.Contains(err.Error(), "the image is for linux/")):
			t.Errorf("%s of %s: %v, %v", test.ask, test.have, got.Platform, err)
		case test.want != "" && (err != nil || got.Platform.String() != test.want):
			t.Errorf("%s of %s: %v, %v, want %s", test.ask, test.have, got.Platform, err, test.want)
		}
	}
}

// TestNestedIndex: an index of indexes, as layouts have them, to a depth.
func TestNestedIndex(t *testing.T) {
	for depth, good := range map[int]bool{1: true, 2: true, 3: true, 6: false} {
		var index v1.ImageIndex = indexOf(t, HostPlatform(), Platform{"linux", "s390x", ""})
		for range depth - 1 {
			index = mutate.AppendManifests(empty.Index, mutate.IndexAddendum{Add: index})
		}
		r := newTestRegistry(t)
		ref := r.pushIndex(t, "x:1", index)
		im, err := Pull(testContext(t), openStore(t), ref, FetchOptions{})
		if !good {
			if err == nil || !strings.Contains(err.Error(), "nested deeper") {
				t.Errorf("depth %d: %v", depth, err)
			}
			continue
		}
		must(t, err)
		if got := readTree(t, im.Rootfs())["platform"]; got != "file 0644 "+HostPlatform().String() {
			t.Errorf("depth %d: %q", depth, got)
		}
	}
}
