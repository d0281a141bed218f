package imagecache

import (
	"archive/tar"
	"bytes"
	"fmt"
	"io/fs"
	"maps"
	"math/rand/v2"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/berth-hpc/berth/imagecache/merge"
	"github.com/berth-hpc/berth/imagecache/squashfs"
)

// TestMergeIsWhatUmociUnpacks makes layers at random out of few names, so that
// they collide in every way, and compares the two converters' trees before
// they are squashed.
func TestMergeIsWhatUmociUnpacks(t *testing.T) {
	silenceUmoci()
	n := uint64(1500)
	if testing.Short() {
		n = 200
	}
	for seed := range n {
		compareLayers(t, fmt.Sprintf("seed %d", seed), layersOf(rand.New(rand.NewPCG(seed, 1))))
		if t.Failed() {
			return
		}
	}
}

func compareLayers(t *testing.T, name string, layers [][]entry) {
	t.Helper()
	want, umociErr := unpackedTree(t, layers)
	got, mergeErr := mergedTree(layers)
	if (umociErr == nil) != (mergeErr == nil) {
		t.Errorf("%s: umoci says %v, merge says %v\n%s", name, umociErr, mergeErr, script(layers))
		return
	}
	if umociErr == nil && !maps.Equal(got, want) {
		t.Errorf("%s: umoci\n%s\nmerge\n%s\nof\n%s", name, listing(want), listing(got), script(layers))
	}
}

func listing(tree map[string]string) string {
	var b strings.Builder
	for _, name := range slices.Sorted(maps.Keys(tree)) {
		fmt.Fprintf(&b, "  %s: %s\n", name, tree[name])
	}
	return b.String()
}

func script(layers [][]entry) string {
	var b strings.Builder
	for i, l := range layers {
		for _, e := range l {
			fmt.Fprintf(&b, "  %d: %c %q %q mode %#o\n", i, e.Typeflag, e.Name, e.Linkname, e.Mode)
		}
	}
	return b.String()
}

// layersOf returns up to four layers. Most of what they say can be done; hard
// links are to names that were used.
func layersOf(r *rand.Rand) [][]entry {
	var used []string
	layers := make([][]entry, 1+r.IntN(4))
	for i := range layers {
		for range 1 + r.IntN(8) {
			e := randomEntry(r, used)
			e.ModTime = time.Unix(1_000_000+r.Int64N(1000), 0)
			if e.Typeflag == tar.TypeReg {
				e.content = fmt.Sprint(e.ModTime.Unix())
			}
			layers[i] = append(layers[i], e)
			used = append(used, e.Name)
		}
	}
	return layers
}

func randomEntry(r *rand.Rand, used []string) entry {
	name := randomPath(r)
	switch k := r.IntN(20); {
	case k < 6:
		return entry{tar.Header{Name: name, Typeflag: tar.TypeReg, Mode: r.Int64N(0o10000)}, ""}
	case k < 10:
		return entry{tar.Header{Name: name, Typeflag: tar.TypeDir, Mode: r.Int64N(0o10000)}, ""}
	case k < 13:
		target := randomPath(r)
		if r.IntN(3) == 0 {
			target = "/" + target
		}
		return entry{tar.Header{Name: name, Typeflag: tar.TypeSymlink, Linkname: target}, ""}
	case k < 15 && len(used) > 0:
		return entry{tar.Header{Name: name, Typeflag: tar.TypeLink, Linkname: used[r.IntN(len(used))]}, ""}
	case k < 17:
		return entry{tar.Header{Name: path.Dir(name) + "/.wh." + path.Base(name), Typeflag: tar.TypeReg}, ""}
	case k < 18:
		return entry{tar.Header{Name: name + "/" + []string{".wh..wh..opq", ".wh."}[r.IntN(2)], Typeflag: tar.TypeReg}, ""}
	default:
		kind := []byte{tar.TypeFifo, tar.TypeChar, tar.TypeBlock}[r.IntN(3)]
		return entry{tar.Header{Name: name, Typeflag: kind, Mode: 0o666}, ""}
	}
}

func randomPath(r *rand.Rand) string {
	parts := make([]string, 1+r.IntN(3))
	for i := range parts {
		parts[i] = string(rune('a' + r.IntN(3)))
	}
	if r.IntN(12) == 0 {
		parts[r.IntN(len(parts))] = ".."
	}
	return strings.Join(parts, "/")
}

// unpackedTree says what umoci makes of the layers.
func unpackedTree(t *testing.T, layers [][]entry) (map[string]string, error) {
	t.Helper()
	root := filepath.Join(t.TempDir(), "rootfs")
	u, err := newUnpacker(root, Limits{}.orDefault().budget())
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range layers {
		if err := u.apply(testContext(t), bytes.NewReader(tarOf(t, l...))); err != nil {
			return nil, err
		}
	}
	if err := u.finish(); err != nil {
		t.Fatal(err)
	}
	return folderTree(t, root), nil
}

// folderTree says what is in a folder.
func folderTree(t *testing.T, root string) map[string]string {
	t.Helper()
	tree, first := map[string]string{}, map[uint64]string{}
	err := filepath.WalkDir(root, func(name string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, _ := filepath.Rel(root, name)
		tree[rel], err = describeUnpacked(name, rel, first)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return tree
}

func describeUnpacked(name, rel string, first map[uint64]string) (string, error) {
	var st syscall.Stat_t
	if err := syscall.Lstat(name, &st); err != nil {
		return "", err
	}
	content := ""
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFREG:
		raw, err := os.ReadFile(name)
		if err != nil {
			return "", err
		}
		content = string(raw)
	case unix.S_IFLNK:
		content, _ = os.Readlink(name)
	}
	same := ""
	if st.Nlink > 1 && st.Mode&unix.S_IFMT != unix.S_IFDIR {
		if first[st.Ino] == "" {
			first[st.Ino] = rel
		}
		same = first[st.Ino]
	}
	kind := map[uint32]squashfs.Kind{
		unix.S_IFREG: squashfs.Regular, unix.S_IFDIR: squashfs.Dir, unix.S_IFLNK: squashfs.Symlink, unix.S_IFIFO: squashfs.Fifo,
	}[st.Mode&unix.S_IFMT]
	return fmt.Sprintf("kind %d mode %#o time %d %q %s", kind, st.Mode&0o7777, st.Mtim.Sec, content, same), nil
}

// mergedTree says what package merge makes of the layers.
func mergedTree(layers [][]entry) (map[string]string, error) {
	tree := merge.New(1000)
	contents := map[*squashfs.Inode]string{}
	for _, l := range layers {
		tree.NextLayer()
		for _, e := range l {
			if !applyPolicy(&e.Header) {
				continue
			}
			n, err := tree.Apply(&e.Header)
			if err != nil {
				return nil, err
			}
			if n != nil {
				contents[n] = e.content
			}
		}
	}
	d := mergedDescriber{map[string]string{}, map[*squashfs.Inode][]string{}, contents}
	d.walk(".", tree.Finish(isDeviceMark))
	d.link()
	return d.tree, nil
}

type mergedDescriber struct {
	tree     map[string]string
	names    map[*squashfs.Inode][]string
	contents map[*squashfs.Inode]string
}

func (d mergedDescriber) walk(name string, n *squashfs.Inode) {
	content := d.contents[n]
	if n.Kind == squashfs.Symlink {
		content = n.Target
	}
	d.tree[name] = fmt.Sprintf("kind %d mode %#o time %d %q ", n.Kind, n.Mode, n.MTime, content)
	d.names[n] = append(d.names[n], name)
	for _, e := range n.Entries {
		d.walk(path.Join(name, e.Name), e.Inode)
	}
}

// link names the first of the names of an inode in each of them.
func (d mergedDescriber) link() {
	for _, names := range d.names {
		for _, name := range names {
			if len(names) > 1 {
				d.tree[name] += names[0]
			}
		}
	}
}
