package doctor

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"

	"github.com/berth-hpc/berth/fault"
	"github.com/berth-hpc/berth/imagecache"
)

// checkConverter converts an image of one empty layer, as a pull would.
func checkConverter(ctx context.Context, _ *Node) []Finding {
	dir, err := scratch("convert")
	if err != nil {
		return nil // told by checkOverlay
	}
	if err := convertEmpty(ctx, dir); err != nil {
		remedy := fault.Remedy(err)
		if remedy == "" {
			remedy = "please report this, with the output of: berth version"
		}
		return one(Fail, "images can't be converted, so nothing new can be pulled: "+oneLine(err), remedy)
	}
	return good("pulled images can be converted")
}

func convertEmpty(ctx context.Context, dir string) error {
	layout, out := filepath.Join(dir, "layout"), filepath.Join(dir, "out")
	if err := errors.Join(writeLayout(layout), os.Mkdir(out, 0o700)); err != nil {
		return err
	}
	ref, err := imagecache.ParseReference("oci:" + layout)
	if err != nil {
		return err
	}
	d, err := imagecache.Resolve(ctx, ref, imagecache.Platform{}, imagecache.Network{})
	if err != nil {
		return err
	}
	return imagecache.Fetch(ctx, ref, d, out, imagecache.FetchOptions{})
}

// A blob of an OCI layout, as a descriptor names it.
type blob struct {
	MediaType string `json:"mediaType"`
	Digest    string `json:"digest"`
	Size      int    `json:"size"`
}

// writeLayout writes an OCI layout that holds one image for this machine. Its
// layer is the end of a tar file: two blocks of zeros.
func writeLayout(dir string) error {
	if err := os.MkdirAll(filepath.Join(dir, "blobs", "sha256"), 0o755); err != nil {
		return err
	}
	const kind = "application/vnd.oci.image."
	layer, err1 := writeBlob(dir, kind+"layer.v1.tar", make([]byte, 1024))
	config, err2 := writeBlob(dir, kind+"config.v1+json", map[string]any{
		"os": "linux", "architecture": runtime.GOARCH, "config": map[string]any{},
		"rootfs": map[string]any{"type": "layers", "diff_ids": []string{layer.Digest}},
	})
	manifest, err3 := writeBlob(dir, kind+"manifest.v1+json", map[string]any{
		"schemaVersion": 2, "mediaType": kind + "manifest.v1+json", "config": config, "layers": []blob{layer},
	})
	index, err4 := json.Marshal(map[string]any{"schemaVersion": 2, "manifests": []blob{manifest}})
	return errors.Join(err1, err2, err3, err4,
		os.WriteFile(filepath.Join(dir, "index.json"), index, 0o644),
		os.WriteFile(filepath.Join(dir, "oci-layout"), []byte(`{"imageLayoutVersion":"1.0.0"}`), 0o644))
}

// writeBlob stores bytes as they are, and anything else as JSON.
func writeBlob(dir, mediaType string, content any) (blob, error) {
	data, raw := content.([]byte)
	if !raw {
		var err error
		if data, err = json.Marshal(content); err != nil {
			return blob{}, err
		}
	}
	sum := fmt.Sprintf("%x", sha256.Sum256(data))
	return blob{mediaType, "sha256:" + sum, len(data)}, os.WriteFile(filepath.Join(dir, "blobs", "sha256", sum), data, 0o644)
}

// checkUnpacker looks for the program that berth run needs without FUSE.
func checkUnpacker(context.Context, *Node) []Finding {
	path, err := exec.LookPath("unsquashfs")
	if err != nil {
		return one(Warn, "no unsquashfs: berth run fails where users can't mount by FUSE", "install the squashfs-tools package")
	}
	return good(path)
}
