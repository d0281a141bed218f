package imagecache

import (
	"cmp"
	"context"
	"encoding/json"
	"strings"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/berth-hpc/berth/imagecache/store"
)

// Bounds on what a store keeps of an image's history. Records are read whole.
const (
	maxHistory     = 512 << 10 // bytes as JSON
	maxHistoryText = 2048      // bytes of one word of its maker's
)

// The names under which images tell what they were built on (OCI image
// specification, annotations.md).
const (
	baseName   = "org.opencontainers.image.base.name"
	baseDigest = "org.opencontainers.image.base.digest"
)

// A Description is what manifest and config say of an image that nobody need
// have pulled.
type Description struct {
	Image   store.Manifest
	History *store.History // nil where it is too long to be kept
}

// Describe asks for the image d that ref leads to, without its layers. A zero d
// asks what ref stands for.
func Describe(ctx context.Context, ref Reference, d store.Digest, platform Platform, net Network) (Description, error) {
	im, err := openDescribed(ctx, ref, d, orHost(platform), net)
	if err != nil {
		return Description{}, imageFault("describe", ref, err)
	}
	return Description{im.storeManifest(), im.history()}, nil
}

func openDescribed(ctx context.Context, ref Reference, d store.Digest, platform Platform, net Network) (*image, error) {
	src, d, err := openAt(ctx, ref, d, platform, net)
	if err != nil {
		return nil, err
	}
	return openImage(ctx, src, d, platform)
}

// history returns what the image says of its making, or nil if that is more than
// a store keeps. If all is too much, the words are left out.
func (im *image) history() *store.History {
	h := &store.History{
		Author: shorten(cmp.Or(im.config.Author, im.words("org.opencontainers.image.authors"), im.words("maintainer"))), Built: builtAt(im.config.Created),
		Base: shorten(im.words(baseName)), BaseDigest: digestOrNone(im.words(baseDigest)), Steps: im.steps(),
	}
	if fits(h) {
		return h
	}
	h.Steps = im.bareSteps()
	if fits(h) {
		return h
	}
	return nil
}

func fits(h *store.History) bool {
	raw, err := json.MarshalIndent(h, "", "  ") // as the store writes it
	return err == nil && len(raw) <= maxHistory
}

// words is what the image says under name, in its manifest or as a label.
func (im *image) words(name string) string {
	return cmp.Or(im.annotations[name], im.config.Config.Labels[name])
}

// steps joins the config's history with the layers, in order.
func (im *image) steps() []store.Step {
	made := 0
	for _, h := range im.config.History {
		if !h.EmptyLayer {
			made++
		}
	}
	if made != len(im.layers) {
		return im.bareSteps() // not every tool keeps a history
	}
	steps, next := []store.Step{}, 0
	for _, h := range im.config.History {
		s := store.Step{
			Built: builtAt(h.Created), Command: shorten(h.CreatedBy), Author: shorten(h.Author), Comment: shorten(h.Comment),
		}
		if !h.EmptyLayer {
			s.Layer = im.layer(next)
			next++
		}
		steps = append(steps, s)
	}
	return steps
}

// bareSteps are the layers alone.
func (im *image) bareSteps() []store.Step {
	steps := []store.Step{}
	for i := range im.layers {
		steps = append(steps, store.Step{Layer: im.layer(i)})
	}
	return steps
}

func (im *image) layer(i int) *store.Layer {
	return &store.Layer{
		Digest: digestOrNone(im.layers[i].Digest.String()), DiffID: digestOrNone(im.config.RootFS.DiffIDs[i].String()),
		Compressed: sizeOrNone(im.layers[i].Size),
	}
}

// builtAt is when something was made. Tools that build the same bits each time
// write 1970, which says nothing.
func builtAt(t v1.Time) time.Time {
	if t.Unix() <= 0 {
		return time.Time{}
	}
	return t.UTC()
}

// shorten cuts a maker's words to what is kept of them.
func shorten(s string) string {
	if len(s) > maxHistoryText {
		return strings.ToValidUTF8(s[:maxHistoryText], "") + "…"
	}
	return s
}
