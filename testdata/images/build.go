package images

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// A Builder makes images in a cache folder. Several, also in several
// processes, may use one folder: each image is built by one of them.
//
//	images/NAME -> NAME-KEY/   OCI layout, there when complete
//	trees/KEY/                 the image's folders, for layers on top (root only)
//	apt/ locks/ tmp/           lists; one lock per image; unfinished work
type Builder struct {
	Cache string    // absolute
	Log   io.Writer // one line per step
}

// Build makes the named images, and those they are based on, unless they are
// there. It builds at most two at a time.
func (b Builder) Build(ctx context.Context, names ...string) error {
	var parents []string
	for _, name := range names {
		r, err := recipeNamed(name)
		if err != nil {
			return err
		}
		if r.Parent != "" && !slices.Contains(parents, r.Parent) {
			parents = append(parents, r.Parent)
		}
	}
	if len(parents) > 0 {
		if err := b.Build(ctx, parents...); err != nil {
			return err
		}
	}
	return b.buildAll(ctx, names)
}

func (b Builder) buildAll(ctx context.Context, names []string) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	failures := make([]error, len(names))
	slots := make(chan struct{}, 2)
	var wg sync.WaitGroup
	for i, name := range names {
		wg.Go(func() {
			slots <- struct{}{}
			defer func() { <-slots }()
			if failures[i] = b.buildOne(ctx, name); failures[i] != nil {
				cancel()
			}
		})
	}
	wg.Wait()
	return errors.Join(failures...)
}

// Ready reports whether the image is there as its recipe is now.
func (b Builder) Ready(name string) (bool, error) {
	r, err := recipeNamed(name)
	if err != nil {
		return false, err
	}
	dir, err := b.keyedDir(r)
	if err != nil {
		return false, err
	}
	_, err = os.Stat(filepath.Join(dir, "index.json"))
	current, _ := os.Readlink(LayoutDir(b.Cache, name))
	return err == nil && current == filepath.Base(dir), nil
}

func (b Builder) keyedDir(r Recipe) (string, error) {
	key, err := r.key()
	return LayoutDir(b.Cache, r.Name+"-"+key), err
}

func (b Builder) buildOne(ctx context.Context, name string) error {
	if ready, err := b.Ready(name); ready || err != nil {
		return err
	}
	unlock, err := lock(ctx, filepath.Join(b.Cache, "locks", name))
	if err != nil {
		return err
	}
	defer unlock()
	if ready, err := b.Ready(name); ready || err != nil {
		return err // somebody else's
	}
	r, err := recipeNamed(name)
	if err != nil {
		return err
	}
	start := time.Now()
	fmt.Fprintf(b.Log, "%s: building\n", name)
	if err := b.make(ctx, r); err != nil {
		return fmt.Errorf("build image %s: %w", name, err)
	}
	fmt.Fprintf(b.Log, "%s: built in %.1f s\n", name, time.Since(start).Seconds())
	return nil
}

// make builds r under its lock and publishes it by rename.
func (b Builder) make(ctx context.Context, r Recipe) error {
	if r.Busybox == "" {
		if err := canSandbox(); err != nil {
			return err
		}
	}
	arch, err := b.archive(ctx)
	if err != nil {
		return err
	}
	work := filepath.Join(b.Cache, "tmp", r.Name)
	if err := os.RemoveAll(work); err != nil { // left by a killed build
		return err
	}
	defer os.RemoveAll(work)
	if err := os.MkdirAll(work, 0o755); err != nil {
		return err
	}
	img, err := b.image(ctx, arch, r, work)
	if err != nil {
		return err
	}
	if err := b.publish(r, img, work); err != nil {
		return err
	}
	return b.sweep()
}

// archive opens the package lists, which all images share.
func (b Builder) archive(ctx context.Context) (archive, error) {
	unlock, err := lock(ctx, filepath.Join(b.Cache, "locks", "apt"))
	if err != nil {
		return archive{}, err
	}
	defer unlock()
	return openArchive(ctx, b.Cache)
}

func (b Builder) image(ctx context.Context, arch archive, r Recipe, work string) (v1.Image, error) {
	if r.Busybox != "" {
		return arch.busyboxImage(ctx, r, filepath.Join(work, "busybox"))
	}
	created, err := arch.date()
	if err != nil {
		return nil, err
	}
	below, err := b.parent(r)
	if err != nil {
		return nil, err
	}
	dirs, err := b.layers(ctx, arch, r, below.tree, work)
	if err != nil {
		return nil, err
	}
	var steps []step
	lower := below.tree
	for i, dir := range dirs {
		layer, err := layerOf(dir, lower, filepath.Join(work, fmt.Sprintf("layer%d.tar.gz", i)), created)
		if err != nil {
			return nil, err
		}
		lower = append(tree{dir}, lower...)
		steps = append(steps, step{layer, fmt.Sprintf("%s, layer %d", r.Name, i)})
	}
	return assemble(below.image, r.Config, created, steps...)
}

// layers makes the folders of r's own layers, lowest first. They are kept in
// trees/ for images on top of it.
func (b Builder) layers(ctx context.Context, arch archive, r Recipe, below tree, work string) ([]string, error) {
	key, err := r.key()
	if err != nil {
		return nil, err
	}
	trees := filepath.Join(b.Cache, "trees")
	if err := os.MkdirAll(trees, 0o700); err != nil { // has setuid programs
		return nil, err
	}
	kept := filepath.Join(trees, key)
	if err := os.RemoveAll(kept); err != nil {
		return nil, err
	}
	main := filepath.Join(kept, "0")
	if r.Suite != "" {
		return []string{main}, arch.bootstrap(ctx, r.Suite, main)
	}
	scratch := filepath.Join(work, "scratch")
	c := change{below, main, filepath.Join(work, "share"), r.Packages, r.Script}
	if err := arch.apply(ctx, scratch, c); err != nil || r.Compile == nil {
		return []string{main}, err
	}
	compiled := filepath.Join(kept, "1")
	return []string{main, compiled}, r.Compile.run(ctx, arch, append(tree{main}, below...), compiled, work)
}

type built struct {
	image v1.Image
	tree  tree
}

// parent opens the image that r is based on, if any.
func (b Builder) parent(r Recipe) (built, error) {
	if r.Parent == "" {
		return built{}, nil
	}
	p, err := recipeNamed(r.Parent)
	if err != nil {
		return built{}, err
	}
	dir, err := b.keyedDir(p)
	if err != nil {
		return built{}, err
	}
	img, err := ReadLayout(dir, Tag)
	if err != nil {
		return built{}, err
	}
	dirs, err := b.tree(p)
	return built{img, dirs}, err
}

// tree returns the folders of a built image.
func (b Builder) tree(r Recipe) (tree, error) {
	key, err := r.key()
	if err != nil {
		return nil, err
	}
	own, err := filepath.Glob(filepath.Join(b.Cache, "trees", key, "[0-9]"))
	if err != nil || len(own) == 0 {
		return nil, fmt.Errorf("the files of %s are gone (remove %s and build again): %w", r.Name, b.Cache, err)
	}
	slices.Reverse(own)
	if r.Parent == "" {
		return own, nil
	}
	p, err := recipeNamed(r.Parent)
	if err != nil {
		return nil, err
	}
	below, err := b.tree(p)
	return append(tree(own), below...), err
}

// run compiles and puts the programs to Dest below upper.
func (c Compile) run(ctx context.Context, arch archive, lower tree, upper, work string) error {
	share := filepath.Join(work, "compile")
	dest := filepath.Join(upper, c.Dest)
	for _, dir := range []string{share, filepath.Dir(dest)} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
	}
	if err := copySources(c.Sources, filepath.Join(share, "src")); err != nil {
		return err
	}
	script := "mkdir out; cd src; " + c.Script
	away := change{lower, filepath.Join(work, "away"), share, c.Packages, script}
	if err := arch.apply(ctx, filepath.Join(work, "scratch"), away); err != nil {
		return fmt.Errorf("compile %s: %w", c.Sources, err)
	}
	return os.Rename(filepath.Join(share, "out"), dest)
}

func copySources(from, to string) error {
	if err := os.Mkdir(to, 0o755); err != nil {
		return err
	}
	files, err := recipeFiles.ReadDir(from)
	if err != nil {
		return err
	}
	for _, f := range files {
		data, err := recipeFiles.ReadFile(from + "/" + f.Name())
		if err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(to, f.Name()), data, 0o644); err != nil {
			return err
		}
	}
	return nil
}

// publish writes the layout aside, renames it and points images/NAME to it.
func (b Builder) publish(r Recipe, img v1.Image, work string) error {
	dir, err := b.keyedDir(r)
	if err != nil {
		return err
	}
	fresh := filepath.Join(work, "layout")
	if err := WriteLayout(fresh, Tag, img); err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(dir), 0o755); err != nil {
		return err
	}
	if err := os.RemoveAll(dir); err != nil { // incomplete, or not pointed to
		return err
	}
	if err := os.Rename(fresh, dir); err != nil {
		return err
	}
	link := filepath.Join(work, "link")
	if err := os.Symlink(filepath.Base(dir), link); err != nil {
		return err
	}
	return os.Rename(link, LayoutDir(b.Cache, r.Name))
}

// What no recipe of this checkout makes is removed when it is older: before
// that, another checkout may be using it.
const sweepAge = 7 * 24 * time.Hour

// sweep removes what former recipes have left in the cache.
func (b Builder) sweep() error {
	current := map[string]bool{}
	for _, r := range recipes() {
		key, err := r.key()
		if err != nil {
			return err
		}
		current[key] = true
	}
	layouts, _ := filepath.Glob(filepath.Join(b.Cache, "images", "*-*")) // the patterns are fixed
	trees, _ := filepath.Glob(filepath.Join(b.Cache, "trees", "*"))
	for _, dir := range slices.Concat(layouts, trees) {
		key := dir[strings.LastIndexAny(dir, "/-")+1:]
		fi, err := os.Stat(dir)
		if err != nil || current[key] || time.Since(fi.ModTime()) < sweepAge {
			continue
		}
		if err := os.RemoveAll(dir); err != nil {
			return err
		}
	}
	return nil
}
