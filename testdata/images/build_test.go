package images_test

import (
	"archive/tar"
	"errors"
	"path"
	"slices"
	"strings"
	"sync"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/berth-hpc/berth/testdata/images"
)

// open returns a built image, or skips.
func open(t *testing.T, name string) v1.Image {
	t.Helper()
	img, err := images.ReadLayout(images.Layout(t, name), images.Tag)
	if err != nil {
		t.Fatal(err)
	}
	return img
}

func layerDigests(t *testing.T, img v1.Image) []string {
	t.Helper()
	m, err := img.Manifest()
	if err != nil {
		t.Fatal(err)
	}
	var digests []string
	for _, l := range m.Layers {
		digests = append(digests, l.Digest.String())
	}
	return digests
}

func TestBaseIsAnImageNotThisHost(t *testing.T) {
	files := entries(t, open(t, "base"), 0)
	for _, name := range []string{"usr/bin/apt-get", "etc/os-release", "tmp/", "proc/", "usr/sbin/policy-rc.d"} {
		if _, ok := files[name]; !ok {
			t.Errorf("%s is missing", name)
		}
	}
	if h := files["bin"]; h.Typeflag != tar.TypeSymlink || h.Linkname != "usr/bin" {
		t.Errorf("bin: type %c to %q", h.Typeflag, h.Linkname)
	}
	if h := files["etc/shadow"]; h.Mode != 0o640 || h.Gid != 42 {
		t.Errorf("etc/shadow: mode %o, gid %d", h.Mode, h.Gid)
	}
	for name, h := range files {
		inside := h.Typeflag != tar.TypeDir &&
			(strings.HasPrefix(name, "usr/share/man/") || strings.HasPrefix(name, "var/lib/apt/lists/"))
		if inside || slices.Contains([]string{"etc/resolv.conf", "etc/hostname", "etc/machine-id", "etc/apt/sources.list"}, name) {
			t.Errorf("%s has no place in the image", name)
		}
		if h.Typeflag == tar.TypeChar || h.Typeflag == tar.TypeBlock || h.Uname != "" {
			t.Errorf("%s: type %c, owner %q", name, h.Typeflag, h.Uname)
		}
	}
}

func TestToolImagesShareTheBaseLayer(t *testing.T) {
	base := layerDigests(t, open(t, "base"))
	for name, program := range map[string]string{
		"bio": "usr/bin/samtools", "mpi": "usr/local/bin/mpi-pingpong", "python": "usr/bin/python3.11",
	} {
		t.Run(name, func(t *testing.T) {
			img := open(t, name)
			digests := layerDigests(t, img)
			if digests[0] != base[0] {
				t.Errorf("the lowest layer is %s, want base's %s", digests[0], base[0])
			}
			upper := entries(t, img, len(digests)-1)
			if h, ok := upper[program]; !ok || h.Mode != 0o755 || h.Uid != 0 {
				t.Errorf("%s: there %v, mode %o, uid %d", program, ok, h.Mode, h.Uid)
			}
			for name := range upper {
				if strings.HasPrefix(path.Base(name), ".wh.") || strings.HasPrefix(name, "share") {
					t.Errorf("%s: nothing was removed, and /share is not of the image", name)
				}
			}
		})
	}
}

func TestBioConfiguration(t *testing.T) {
	cf, err := open(t, "bio").ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	if cf.Config.WorkingDir != "/data" || !slices.Contains(cf.Config.Env, "BIO_IMAGE=1") {
		t.Errorf("configuration %+v", cf.Config)
	}
	if cf.Created.IsZero() || len(cf.History) != len(cf.RootFS.DiffIDs) {
		t.Errorf("created %v, history %+v", cf.Created, cf.History)
	}
}

func TestRemovedAndReplacedFilesBecomeWhiteouts(t *testing.T) {
	files := entries(t, open(t, "changed"), 2)
	for _, name := range []string{
		"usr/bin/.wh.wgsim", "etc/gss/.wh..wh..opq", "etc/issue/.wh..wh..opq", "etc/.wh.skel", "etc/skeleton/.bashrc",
		"home/blank and\nnewline", "var/pipe",
	} {
		if _, ok := files[name]; !ok {
			t.Errorf("%q is missing", name)
		}
	}
	if _, ok := files["etc/skeleton/.wh..wh..opq"]; ok {
		t.Error("etc/skeleton is new but marked as if it hid something")
	}
	if h := files["usr/local/bin/bwa-link"]; h.Typeflag != tar.TypeLink || h.Linkname != "usr/bin/bwa" {
		t.Errorf("bwa-link: type %c to %q", h.Typeflag, h.Linkname)
	}
	if h := files["usr/local/bin/setuid"]; h.Mode != 0o4755 {
		t.Errorf("setuid: mode %o", h.Mode)
	}
	if h := files["home/user"]; h.Uid != 1234 || h.Gid != 5678 {
		t.Errorf("home/user: %d:%d", h.Uid, h.Gid)
	}
	if h := files["etc/null"]; h.Typeflag != tar.TypeChar || h.Devmajor != 1 || h.Devminor != 3 {
		t.Errorf("etc/null: %+v", h)
	}
}

func TestUnknownImage(t *testing.T) {
	b := images.Builder{Cache: t.TempDir(), Log: t.Output()}
	err := b.Build(t.Context(), "biology")
	if err == nil || !strings.Contains(err.Error(), "biology") || !strings.Contains(err.Error(), "bio mpi") {
		t.Errorf("%v; want what was asked for and what there is", err)
	}
}

// Eight builders share a cache that holds nothing yet.
func TestOneBuildPerImage(t *testing.T) {
	cache, log := t.TempDir(), &logLines{}
	failures := make([]error, 8)
	var wg sync.WaitGroup
	for i := range failures {
		wg.Go(func() {
			failures[i] = images.Builder{Cache: cache, Log: log}.Build(t.Context(), "tiny")
		})
	}
	wg.Wait()
	if err := errors.Join(failures...); errors.Is(err, images.ErrCannot) {
		t.Skip(err)
	} else if err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(log.String(), "tiny: building"); n != 1 {
		t.Errorf("built %d times:\n%s", n, log)
	}
	img, err := images.ReadLayout(images.LayoutDir(cache, "tiny"), images.Tag)
	if err != nil {
		t.Fatal(err)
	}
	files := entries(t, img, 0)
	if h := files["bin/sh"]; h.Typeflag != tar.TypeSymlink || files["bin/busybox"].Size < 1<<20 {
		t.Errorf("bin/sh: %+v, bin/busybox: %d bytes", h, files["bin/busybox"].Size)
	}
}

type logLines struct {
	mu sync.Mutex
	b  strings.Builder
}

func (l *logLines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logLines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}
