package imagecache

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/berth-hpc/berth/fault"
	"github.com/berth-hpc/berth/imagecache/squashfs"
	"github.com/berth-hpc/berth/imagecache/store"
)

// smallLimits keep a fuzzer's inputs cheap.
func smallLimits() Limits { return Limits{Entries: 2000, Bytes: 4 << 20, Free: 4 << 20} }

// FuzzLayer gives both converters any tar stream. None may panic, take long, or
// touch what is outside of the work folder; a tree that comes out is sound, and
// where both make one it is the same.
func FuzzLayer(f *testing.F) {
	for _, raw := range hardImage(f) {
		f.Add(raw)
	}
	f.Add(tarOf(f, symlink("a", "/"), file("a/etc/passwd", 0o644, "x")))
	f.Add(tarOf(f, symlink("a", "../../.."), file("a/tmp/x", 0o644, "x")))
	f.Add(tarOf(f, file("../../../tmp/x", 0o644, "x"), file("/abs", 0o644, "x")))
	f.Add(tarOf(f, hardlink("a", "/etc/passwd"), hardlink("b", "../../etc/passwd")))
	f.Add(tarOf(f, dir("d", 0o755), file("d/f", 0o644, "x"), whiteout("d/.wh..wh..opq"), whiteout(".wh.d")))
	f.Add(tarOf(f, whiteout(".wh..."), whiteout(".wh..")))
	f.Add(tarOf(f, symlink("l", "d"), dir("l", 0o755), file("l/f", 0o644, "x")))
	f.Fuzz(func(t *testing.T, raw []byte) {
		if len(raw) > 64<<10 {
			return
		}
		outer := t.TempDir()
		work := filepath.Join(outer, "work")
		if err := os.Mkdir(work, 0o700); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		defer cancel()
		out := filepath.Join(work, "out.sqfs")
		err := (Stream{Workers: 1, Limits: smallLimits()}).Convert(ctx, tarLayers{raw}, work, out, nil)
		if err == nil {
			checkStructure(t, out)
		} else if fault.Of(err) == fault.Bug && !isOurs(err) && !isTarCut(err) {
			t.Errorf("nobody is to blame for %v", err)
		}
		unpackFuzzed(t, ctx, work, raw, err)
		if entries, _ := os.ReadDir(outer); len(entries) != 1 {
			t.Errorf("it got out: %v", entries)
		}
	})
}

// isTarCut: the layer ended early. Whether that is the image's fault is for the
// digests to say, which are above the converter.
func isTarCut(err error) bool { return errors.Is(err, io.ErrUnexpectedEOF) }

// unpackFuzzed applies the layer with umoci and wants the same tree.
func unpackFuzzed(t *testing.T, ctx context.Context, work string, raw []byte, streamed error) {
	t.Helper()
	silenceUmoci()
	root := filepath.Join(work, "rootfs")
	u, err := newUnpacker(root, smallLimits().budget())
	if err != nil {
		t.Fatal(err)
	}
	if err := u.apply(ctx, bytes.NewReader(raw)); err != nil {
		return
	}
	if streamed != nil {
		if !strings.Contains(streamed.Error(), "limits.") {
			t.Logf("umoci takes what the merge refuses: %v", streamed)
		}
		return
	}
	if err := u.finish(); err != nil {
		t.Fatal(err)
	}
	want, got := folderTree(t, root), squashedTree(t, filepath.Join(work, "out.sqfs"))
	if !maps.Equal(got, want) {
		t.Errorf("umoci\n%s\nstream\n%s", listing(want), listing(got))
	}
}

// squashedTree says what is in a squashfs file, as folderTree does.
func squashedTree(t *testing.T, path string) map[string]string {
	t.Helper()
	f, r, err := openSquashfs(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	tree, names := map[string]string{}, map[uint32][]string{}
	err = r.Walk(t.Context(), func(path string, n *squashfs.Node) error {
		content := n.Target
		if n.Kind == squashfs.Regular {
			raw, err := io.ReadAll(r.Content(n))
			if err != nil {
				return err
			}
			content = string(raw)
		}
		name := filepath.Join(".", path)
		tree[name] = fmt.Sprintf("kind %d mode %#o time %d %q ", n.Kind, n.Mode, n.MTime, content)
		names[n.Number] = append(names[n.Number], name)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, same := range names {
		for _, name := range same {
			if len(same) > 1 {
				tree[name] += same[0]
			}
		}
	}
	return tree
}

// FuzzLayers has the input choose layers out of few names, as
// TestMergeIsWhatUmociUnpacks has chance do it: the fuzzer sees which choices
// lead to new code.
func FuzzLayers(f *testing.F) {
	for seed := range uint64(8) {
		chosen := make([]byte, 400)
		rand.NewChaCha8([32]byte{byte(seed)}).Read(chosen)
		f.Add(chosen)
	}
	f.Fuzz(func(t *testing.T, choices []byte) {
		silenceUmoci()
		if len(choices) > 4096 {
			return
		}
		compareLayers(t, "these choices", layersOf(rand.New(&chosen{choices})))
	})
}

// chosen is a source of numbers that were chosen; 0 when there are no more.
type chosen struct{ left []byte }

// Uint64 implements rand.Source. A Rand looks at the highest bits or the lowest;
// those between keep it from drawing again.
func (c *chosen) Uint64() uint64 {
	b := [8]byte{2: 0x55, 3: 0x55, 4: 0x55, 5: 0x55}
	n := copy(b[:2], c.left)
	copy(b[6:], b[:2])
	c.left = c.left[n:]
	return binary.BigEndian.Uint64(b[:])
}

// FuzzManifest reads any bytes as a manifest or an index, and as a config.
func FuzzManifest(f *testing.F) {
	img := imageOf(f, tarOf(f, file("f", 0o644, "x")))
	if raw, err := img.RawManifest(); err == nil {
		f.Add(raw)
	}
	if raw, err := img.RawConfigFile(); err == nil {
		f.Add(raw)
	}
	f.Add([]byte(`{"schemaVersion":1}`))
	f.Add([]byte(`{"schemaVersion":2,"manifests":[{"digest":"sha256:0","platform":null},{"platform":{"os":"linux","architecture":"amd64"}}]}`))
	f.Add([]byte(`{"config":{"digest":"sha512:ab","size":-1},"layers":[{"size":-9223372036854775808}]}`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		src := anySource{raw}
		_, _ = resolve(context.Background(), src, Platform{OS: "linux", Architecture: "amd64"})
		im, err := openImage(context.Background(), src, digestOf(raw), Platform{OS: "linux", Architecture: "amd64"})
		if err != nil && fault.Of(err) == fault.Bug {
			t.Errorf("nobody is to blame for %v", err)
		}
		if err == nil && len(im.layers) != len(im.config.RootFS.DiffIDs) {
			t.Errorf("%d layers, %d diffIDs", len(im.layers), len(im.config.RootFS.DiffIDs))
		}
	})
}

// anySource answers everything with the same bytes.
type anySource struct{ raw []byte }

func (s anySource) root(context.Context) ([]byte, error)                   { return s.raw, nil }
func (s anySource) manifest(context.Context, store.Digest) ([]byte, error) { return s.raw, nil }
func (s anySource) local() bool                                            { return true }
func (s anySource) origin() string                                         { return "" }

func (s anySource) blob(context.Context, v1.Descriptor) (io.ReadCloser, error) {
	return io.NopCloser(bytes.NewReader(s.raw)), nil
}

// FuzzDecompress reads any bytes as a layer that may be compressed.
func FuzzDecompress(f *testing.F) {
	raw := tarOf(f, file("f", 0o644, strings.Repeat("text ", 100)))
	f.Add(raw)
	f.Add(gzipped(f, raw))
	f.Add(zstded(f, raw))
	f.Add([]byte{0x1f, 0x8b})
	f.Add([]byte{0x28, 0xb5, 0x2f, 0xfd, 0xff, 0xff, 0xff})
	f.Fuzz(func(t *testing.T, raw []byte) {
		packed := &countedBytes{Reader: bytes.NewReader(raw)}
		body, err := decompress(packed)
		if err == nil {
			_, err = io.Copy(io.Discard, &inflating{plain: body, packed: packed, limits: Limits{Bytes: 8 << 20}.orDefault()})
			body.Close()
		}
		if err != nil && fault.Of(err) != fault.User {
			t.Errorf("the layer is not to blame for %v", err)
		}
	})
}

// FuzzContentRange: what it accepts is a part of something.
func FuzzContentRange(f *testing.F) {
	for _, s := range []string{"bytes 0-9/10", "bytes 5-5/*", "bytes 9-5/10", "bytes -1-5/10", "bytes 0-99999999999999999999/1", "", "bytes", "items 0-1/2"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		from, total, ok := parseContentRange(s)
		if ok && (from < 0 || total >= 0 && from >= total) {
			t.Errorf("%q: %d of %d", s, from, total)
		}
	})
}

// FuzzRetryAfter: nobody is made to wait for less than nothing.
func FuzzRetryAfter(f *testing.F) {
	for _, s := range []string{"1", "-1", "Wed, 21 Oct 2026 07:28:30 GMT", "9223372036854775807", "soon"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if d := retryAfter(s, time.Unix(0, 0)); d < 0 {
			t.Errorf("%q: %v", s, d)
		}
	})
}

// FuzzAnswer: a registry's words reach the terminal as one line without control
// characters.
func FuzzAnswer(f *testing.F) {
	f.Add(404, `{"errors":[{"code":"X","message":"no\nway\u001b[31m"}]}`)
	f.Add(200, "{")
	f.Fuzz(func(t *testing.T, status int, body string) {
		e, err := newEndpoint("quay.io", "a/b", Host{}, Network{})
		if err != nil {
			t.Fatal(err)
		}
		resp := &http.Response{StatusCode: status, Header: http.Header{}, Body: io.NopCloser(strings.NewReader(body)), Request: &http.Request{}}
		if text := e.answerError(resp).Error(); strings.ContainsFunc(text, func(r rune) bool { return r < ' ' || r == 0x7f }) {
			t.Errorf("%q", text)
		}
	})
}

// FuzzSparse looks for tar headers whose sizes do not fit their content.
func FuzzSparse(f *testing.F) {
	f.Add(int64(5), "GNU.sparse.major", "1", "GNU.sparse.size", "100", []byte("1\n0\n5\n"))
	f.Add(int64(0), "GNU.sparse.map", "0,5,10,5", "GNU.sparse.size", "9223372036854775807", []byte("x"))
	f.Fuzz(func(t *testing.T, size int64, k1, v1, k2, v2 string, content []byte) {
		var b bytes.Buffer
		w := tar.NewWriter(&b)
		if w.WriteHeader(&tar.Header{Name: "f", Typeflag: tar.TypeReg, Mode: 0o644, Size: int64(len(content)), PAXRecords: map[string]string{k1: v1, k2: v2}, Format: tar.FormatPAX}) != nil {
			return
		}
		_, _ = w.Write(content)
		_ = w.Close()
		out := filepath.Join(t.TempDir(), "out")
		if err := (Stream{Workers: 1, Limits: smallLimits()}).Convert(context.Background(), tarLayers{b.Bytes()}, "", out, nil); err == nil {
			checkStructure(t, out)
		}
	})
}
