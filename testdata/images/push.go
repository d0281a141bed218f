package images

import (
	"context"
	"fmt"
	"strings"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
)

// Push puts img to a registry that speaks plain HTTP and returns its digest
// ("sha256:…"). ref is REPOSITORY[:TAG], host is HOST:PORT. What the registry
// has is not sent again.
func Push(ctx context.Context, host, ref string, img v1.Image) (string, error) {
	to, err := name.ParseReference(host+"/"+ref, name.Insecure)
	if err != nil {
		return "", err
	}
	if err := remote.Write(to, img, remote.WithContext(ctx)); err != nil {
		return "", fmt.Errorf("push %s: %w", to, err)
	}
	digest, err := img.Digest()
	return digest.String(), err
}

// WriteDockerArchive writes img to the file path as `docker save` does,
// under the name ref (REPOSITORY:TAG).
func WriteDockerArchive(path, ref string, img v1.Image) error {
	tag, err := name.NewTag(ref)
	if err != nil {
		return err
	}
	return tarball.WriteToFile(path, tag, img)
}

// SplitTag divides NAME[:TAG]; the tag is Tag when none is given.
func SplitTag(ref string) (name, tag string) {
	name, tag, found := strings.Cut(ref, ":")
	if !found {
		tag = Tag
	}
	return name, tag
}

// Image builds an image if need be and opens it.
func (b Builder) Image(ctx context.Context, name string) (v1.Image, error) {
	if err := b.Build(ctx, name); err != nil {
		return nil, err
	}
	return ReadLayout(LayoutDir(b.Cache, name), Tag)
}
