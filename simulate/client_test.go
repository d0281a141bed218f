package simulate_test

import (
	"fmt"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/berth-hpc/berth/imagecache"
	"github.com/berth-hpc/berth/simulate"
	"github.com/berth-hpc/berth/testdata/images"
	"github.com/berth-hpc/berth/testdata/registry/server"
)

// The real client makes the requests that are predicted, whether or not they
// take a token.
func TestRequestsOfTheClient(t *testing.T) {
	for name, repository := range map[string]string{"anybody": "x", "token": "faults/any.token/x"} {
		t.Run(name, func(t *testing.T) {
			reg := server.Start(t, server.Options{Wrap: server.Faults})
			const layers = 5
			img, err := images.FromFiles(v1.Config{}, contents(layers)...)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := images.Push(t.Context(), reg.Host, "x:1", img); err != nil {
				t.Fatal(err)
			}
			ref, err := imagecache.ParseReference(reg.Host + "/" + repository + ":1")
			if err != nil {
				t.Fatal(err)
			}
			d, err := imagecache.Resolve(t.Context(), ref, imagecache.Platform{}, imagecache.Network{})
			if err != nil {
				t.Fatal(err)
			}
			reg.Forget() // those of submission
			if err := imagecache.Fetch(t.Context(), ref, d, t.TempDir(), imagecache.FetchOptions{}); err != nil {
				t.Fatal(err)
			}
			site := simulate.DefaultSite()
			site.Registry.Tokens = name == "token"
			r, err := simulate.Run(site, simulate.Image{Compressed: 50000, Squashed: 50000, Layers: layers}, simulate.NodeStores, 1, 1)
			if err != nil {
				t.Fatal(err)
			}
			if got := len(reg.Requests()); got != r.Registry.Requests {
				t.Errorf("%d requests, predicted %d: %v", got, r.Registry.Requests, reg.Requests())
			}
		})
	}
}

// contents are so many layers that differ.
func contents(layers int) (all [][]images.File) {
	for i := range layers {
		all = append(all, []images.File{images.Text(fmt.Sprint("file", i), fmt.Sprint(i))})
	}
	return all
}
