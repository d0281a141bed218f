package imagecache

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/berth-hpc/berth/imagecache/store"
)

// FetchOptions say how Fetch works. The zero value is usable.
type FetchOptions struct {
	Network  Network
	Platform Platform // zero means this machine's
	// Converter defaults to Stream.
	Converter Converter
	// Parallel is how many layers are transferred at once; 0 means 3.
	Parallel int
	Progress ProgressFunc // may be nil
	// Reserve, which may be nil, is asked once whether so many bytes may be
	// written, before the first byte of a layer is asked for. Its error ends
	// the fetch. Pull sets it.
	Reserve func(ctx context.Context, bytes int64) error
	// Space keeps Pull's store within its limits; nil for none.
	Space *store.Space
	// Version is Berth's version, for the record.
	Version string
}

// Fetch gets the image d, which Resolve said ref names, and converts it. dir
// is an empty folder, usually Lock.TempDir's. On success it holds
// exactly rootfs.sqfs, image.json and record.json, ready for Store.Publish; on
// failure whatever was left.
//
// Fetch writes below dir only, and needs no privilege: on managed nodes it
// runs as the account that pulls, in its own pid namespace. There the
// caller lets only references of Kind Registry through: other kinds
// name files that the user may not be allowed to read.
func Fetch(ctx context.Context, ref Reference, d store.Digest, dir string, opts FetchOptions) error {
	err := fetch(ctx, ref, d, dir, opts)
	return imageFault("pull", ref, err)
}

func fetch(ctx context.Context, ref Reference, d store.Digest, dir string, opts FetchOptions) error {
	if opts.Converter == nil {
		opts.Converter = Stream{}
	}
	report := &reporter{f: opts.Progress}
	clock := &stopwatch{start: time.Now()}
	src, err := openSource(ref, opts.Network)
	if err != nil {
		return err
	}
	im, err := openImage(ctx, src, d, orHost(opts.Platform))
	if err != nil {
		return err
	}
	if opts.Reserve != nil {
		if err := opts.Reserve(ctx, expectedBytes(im, src.local(), opts.Converter)); err != nil {
			return err
		}
	}
	for {
		err = transfer(ctx, src, im, dir, report, clock, ref, opts)
		if !isElsewhere(err) || ctx.Err() != nil {
			return err
		}
		// A mirror sent other bytes than named. What was made of them goes.
		if err := removeAll(dir); err != nil {
			return err
		}
	}
}

// removeAll removes what is in dir.
func removeAll(dir string) error {
	entries, err := os.ReadDir(dir)
	for _, e := range entries {
		err = errors.Join(err, os.RemoveAll(filepath.Join(dir, e.Name())))
	}
	return err
}

// transfer gets the layers and converts them.
func transfer(ctx context.Context, src source, im *image, dir string, report *reporter, clock *stopwatch, ref Reference, opts FetchOptions) error {
	l, err := startLayers(ctx, src, im, filepath.Join(dir, "layers"), opts.Converter.Streams(), opts.Parallel, report)
	if err != nil {
		return fmt.Errorf("make work folder: %w", err)
	}
	defer l.stop()
	if err := convert(ctx, opts.Converter, l, dir, report, clock); err != nil {
		return err
	}
	return writeResult(ctx, dir, ref, src, im, l, clock, opts)
}

// convert runs the converter in a folder of its own and removes what it and
// the transfer leave behind.
func convert(ctx context.Context, c Converter, l *layers, dir string, report *reporter, clock *stopwatch) error {
	work := filepath.Join(dir, "work")
	if err := os.Mkdir(work, 0o700); err != nil {
		return err
	}
	watch := func(p Progress) {
		clock.squashing(p)
		report.report(p)
	}
	if err := c.Convert(ctx, l, work, filepath.Join(dir, store.RootfsName), watch); err != nil {
		return err
	}
	l.stop()
	clock.end = time.Now()
	return errors.Join(os.RemoveAll(work), os.RemoveAll(l.dir))
}

// stopwatch notes when the phases of a fetch end.
type stopwatch struct{ start, squash, end time.Time }

// squashing notes the first word of squashing.
func (s *stopwatch) squashing(p Progress) {
	if p.Phase == PhaseSquash && s.squash.IsZero() {
		s.squash = time.Now()
	}
}

func (s *stopwatch) seconds(l *layers) map[string]float64 {
	m := map[string]float64{"total": s.end.Sub(s.start).Seconds()}
	if !l.src.local() {
		m["pull"] = time.Unix(0, l.done.Load()).Sub(s.start).Seconds()
	}
	if !s.squash.IsZero() {
		m["unpack"] = s.squash.Sub(s.start).Seconds()
		m["squash"] = s.end.Sub(s.squash).Seconds()
	}
	return m
}

func writeResult(ctx context.Context, dir string, ref Reference, src source, im *image, l *layers, clock *stopwatch, opts FetchOptions) error {
	size, sum, err := measure(ctx, filepath.Join(dir, store.RootfsName))
	if err != nil {
		return err
	}
	record := store.Record{
		Digest: im.digest, References: []string{ref.String()}, Source: src.origin(), Created: clock.end.UTC(),
		Layers: l.Len(), Compressed: l.compressed.Load(), Uncompressed: l.uncompressed.Load(), Squashed: size, SHA256: sum,
		Seconds: clock.seconds(l), Converter: opts.Converter.Name(), Policy: store.PolicyVersion, Version: opts.Version,
	}
	return errors.Join(
		store.WriteJSON(filepath.Join(dir, store.ConfigName), 0o444, im.storeManifest()),
		store.WriteJSON(filepath.Join(dir, store.RecordName), 0o444, record))
}

// measure returns a file's size in bytes and its hash.
func measure(ctx context.Context, path string) (size int64, sum string, err error) {
	f, err := os.Open(path)
	if err != nil {
		return 0, "", err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return 0, "", err
	}
	sum, err = store.Hash(ctx, f)
	return info.Size(), sum, err
}
