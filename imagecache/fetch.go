package imagecache

import (
	"context"
	"errors"
	"fmt"
	"io"
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
	// Rate bounds the transfer of layers, in bytes per second for all together;
	// 0 does not.
	Rate     int64
	Progress ProgressFunc // may be nil
	// Reserve, which may be nil, is asked once whether so many bytes may be
	// written, before the first byte of a layer is asked for. Its error ends
	// the fetch. Pull sets it.
	Reserve func(ctx context.Context, bytes int64) error
	// Space keeps Pull's store within its limits; nil for none.
	Space *store.Space
	// Delegate is a stream to another process, which calls Serve with the
	// same Converter, and in whose folder rootfs.sqfs appears instead of in
	// Fetch's. nil converts in this one. Only for registries.
	Delegate io.ReadWriter
	// Version is Berth's version, for the record.
	Version string

	source source // what Pull has opened already, or nil
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

// fetching is one run of Fetch.
type fetching struct {
	ref    Reference
	dir    string
	opts   FetchOptions
	report *reporter
	clock  *stopwatch
	other  *delegate // nil to convert here

	src source
	im  *image
}

func fetch(ctx context.Context, ref Reference, d store.Digest, dir string, opts FetchOptions) (err error) {
	if opts.Converter == nil {
		opts.Converter = Stream{}
	}
	f := &fetching{
		ref: ref, dir: dir, opts: opts,
		report: &reporter{f: opts.Progress}, clock: &stopwatch{start: time.Now()},
	}
	if opts.Delegate != nil {
		f.other = newDelegate(opts.Delegate)
	}
	if f.src = opts.source; f.src == nil {
		if f.src, err = openSource(ctx, ref, opts.Network); err != nil {
			return err
		}
	}
	if f.im, err = openImage(ctx, f.src, d, orHost(opts.Platform)); err != nil {
		return err
	}
	if err := limitsOf(opts.Converter).checkLayers(len(f.im.layers)); err != nil {
		return err
	}
	if opts.Reserve != nil {
		if err := opts.Reserve(ctx, expectedBytes(f.im, f.src.local(), opts.Converter)); err != nil {
			return err
		}
	}
	for {
		err := f.transfer(ctx)
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

// transfer gets the layers, has them converted, and writes the image's other
// files.
func (f *fetching) transfer(ctx context.Context) (err error) {
	if s, ok := f.src.(spooler); ok {
		if err := s.spool(ctx, f.dir, len(f.im.layers)); err != nil {
			return err
		}
		defer func() { err = errors.Join(err, s.release()) }()
	}
	direct := f.other != nil || f.opts.Converter.Streams()
	l, err := startLayers(ctx, f.src, f.im, filepath.Join(f.dir, "layers"), direct, f.opts, f.report)
	if err != nil {
		return fmt.Errorf("make work folder: %w", err)
	}
	defer l.stop()
	watch := func(p Progress) {
		f.clock.squashing(p)
		f.report.report(p)
	}
	var m made
	if f.other != nil {
		m, err = f.other.convert(ctx, l, watch)
	} else {
		m, err = convert(ctx, f.opts.Converter, l, f.dir, watch)
	}
	if err != nil {
		return err
	}
	f.clock.end = time.Now()
	return f.write(l, m)
}

// convert runs the converter in a folder of its own and removes what it and
// the transfer leave behind.
func convert(ctx context.Context, c Converter, l *layers, dir string, watch ProgressFunc) (made, error) {
	work, out := filepath.Join(dir, "work"), filepath.Join(dir, store.RootfsName)
	if err := os.Mkdir(work, 0o700); err != nil {
		return made{}, err
	}
	if err := c.Convert(ctx, l, work, out, watch); err != nil {
		return made{}, err
	}
	l.stop()
	if err := errors.Join(os.RemoveAll(work), os.RemoveAll(l.dir)); err != nil {
		return made{}, err
	}
	size, sum, err := measure(ctx, out)
	return made{Size: size, SHA256: sum, Uncompressed: l.uncompressed.Load()}, err
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

// write writes image.json and record.json.
func (f *fetching) write(l *layers, m made) error {
	record := store.Record{
		Digest: f.im.digest, References: []string{f.ref.String()}, Source: f.src.origin(), Created: f.clock.end.UTC(),
		Layers: l.Len(), Compressed: l.compressed.Load(), Uncompressed: m.Uncompressed, Squashed: m.Size, SHA256: m.SHA256,
		Seconds: f.clock.seconds(l), Converter: f.opts.Converter.Name(), Policy: store.PolicyVersion, Version: f.opts.Version,
		History: f.im.history(),
	}
	return errors.Join(
		store.WriteJSON(filepath.Join(f.dir, store.ConfigName), 0o444, f.im.storeManifest()),
		store.WriteJSON(filepath.Join(f.dir, store.RecordName), 0o444, record))
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
