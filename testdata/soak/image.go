package soak

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"math/rand/v2"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/mutate"

	"github.com/berth-hpc/berth/testdata/images"
)

// The registries of the soak. The closed one wants a login.
const (
	open   = "10.97.0.1:5000"
	closed = "10.97.0.1:5001"
)

// An Image is one of those that jobs run in. No two have a file's content in
// common but for their programs.
type Image struct {
	Repository string
	Owner      string // of a private one
	seed       uint64
}

// Images are all, by the names that jobs give them.
var Images = map[string]Image{
	"red":    {"soak/red", "", 1},
	"green":  {"soak/green", "", 2},
	"blue":   {"soak/blue", "", 3},
	"alices": {"alice/soak", "alice", 4},
	"bobs":   {"bob/soak", "bob", 5},
}

func publicImages() []string { return []string{"blue", "green", "red"} }

// mayUse are the images that a user's jobs run in.
func mayUse(user string) []string {
	all := publicImages()
	for _, name := range []string{"alices", "bobs"} {
		if Images[name].Owner == user {
			all = append(all, name)
		}
	}
	return all
}

// Reference is what users type.
func (i Image) Reference() string {
	if i.Owner != "" {
		return closed + "/" + i.Repository + ":1"
	}
	return open + "/" + i.Repository + ":1"
}

// prove is the program of an image that says where it runs: the image's own
// mark, a sum over its data, who it is, and what its caller wants to read, at
// its begin and at its end.
const prove = `#!/bin/sh
say() { echo "$1 $2 $(cat /mark) $(cat /data/* | sha256sum | cut -c 1-16) $(id -u) $SLURM_PROCID"; }
say begin "$1"
if [ "$4" = writable ]; then
	rm -f /spare 2>/dev/null # there may be two of us
	echo "$1" >"/written.$SLURM_PROCID" && [ "$(cat "/written.$SLURM_PROCID")" = "$1" ] && ! [ -e /spare ] ||
		{ echo "not writable $1"; exit 9; }
fi
sleep "$2"
say end "$1"
exit "$3"
`

// data are the files that the sum is about: too much for one block, half of
// it compressible. A writable container removes another one.
func (i Image) data() (files []images.File, sum string) {
	random := rand.NewChaCha8([32]byte{byte(i.seed)})
	all := sha256.New()
	for n := range 6 {
		noise := make([]byte, 160<<10)
		_, _ = random.Read(noise)
		body := hex.EncodeToString(noise)
		files = append(files, images.Text(fmt.Sprintf("data/%d", n), body))
		all.Write([]byte(body))
	}
	return files, hex.EncodeToString(all.Sum(nil))[:16]
}

// mark is a line that only this image has.
func (i Image) mark() string {
	return fmt.Sprintf("%s-%d", strings.ReplaceAll(i.Repository, "/", "-"), i.seed)
}

// Line is what its program prints: when is begin or end.
func (i Image) Line(when, nonce string, uid, rank int) string {
	_, sum := i.data()
	return fmt.Sprintf("%s %s %s %s %d %d", when, nonce, i.mark(), sum, uid, rank)
}

// Build adds what proves to base.
func (i Image) Build(base v1.Image) (v1.Image, error) {
	files, _ := i.data()
	files = append([]images.File{images.Dir("data"), images.Text("mark", i.mark()+"\n"), images.Text("spare", "removed by writable containers\n"), images.Program("prove", prove)}, files...)
	own, err := images.FromFiles(v1.Config{}, files)
	if err != nil {
		return nil, err
	}
	layers, err := own.Layers()
	if err != nil {
		return nil, err
	}
	return mutate.AppendLayers(base, layers...)
}
