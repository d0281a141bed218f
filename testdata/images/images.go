// Package images makes the container images of the tests and the demo.
//
// Two kinds exist. Images in memory (FromFiles, Tiny) need nothing and take
// microseconds: they are for unit tests. Images with real programs are made
// from Debian packages by recipes and kept in a cache folder as OCI layouts:
//
//	recipe.go   name -> Recipe                          (what is in it)
//	apt.go      the host's apt -> package lists, sources
//	sandbox.go  Recipe -> changed files                 (root, own namespaces)
//	layer.go    changed files -> OCI layer
//	build.go    layers -> OCI layout in the cache       (one builder per image)
//	push.go     OCI layout -> registry, docker-archive
//
// Packages come from where the host's apt is told to take them; no mirror is
// named here. Recipes with packages run as root on Debian 12 with mmdebstrap.
// All mounts live in mount namespaces of their own, so that a killed build
// leaves none.
package images

import (
	"embed"
	"os"
	"path/filepath"
)

// Tag is the tag of every image in its OCI layout.
const Tag = "latest"

// recipeFiles are what the bytes of an image depend on, besides its Recipe.
//
//go:embed base.sh chroot.sh mpi layer.go files.go busybox.go assemble.go
var recipeFiles embed.FS

// CacheDir is where images and data are kept when nothing else is asked for:
// $BERTH_TEST_CACHE, else /var/cache/berth-test.
func CacheDir() string {
	if dir := os.Getenv("BERTH_TEST_CACHE"); dir != "" {
		return dir
	}
	return "/var/cache/berth-test"
}

// LayoutDir is the OCI layout of an image in a cache. It exists, and is
// complete, once the image was built; it may be of an older recipe.
func LayoutDir(cache, name string) string {
	return filepath.Join(cache, "images", name)
}
