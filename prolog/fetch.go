package prolog

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"github.com/berth-hpc/berth/fault"
	"github.com/berth-hpc/berth/imagecache"
	"github.com/berth-hpc/berth/imagecache/store"
)

// A FetchRequest is what the worker asks of the fetcher, `berth node fetch`,
// as one JSON value on its standard input. Without a digest the fetcher only
// says which one the reference stands for; with one it gets that image and
// puts it, ready to be published, into its working directory.
type FetchRequest struct {
	Image  string       `json:"image"`
	Digest store.Digest `json:"digest"`
}

// A FetchEvent is what the fetcher answers on descriptor 3: one JSON value
// per line, exactly one field set but for Disk. Any number of Progress lines come first;
// the last line is Failure, Digest or Done.
type FetchEvent struct {
	Progress *imagecache.Progress `json:"progress,omitempty"`
	Failure  *fault.Message       `json:"failure,omitempty"`
	Disk     bool                 `json:"disk,omitempty"` // with Failure: the work folder's disk is at fault
	Digest   *store.Digest        `json:"digest,omitempty"`
	Done     bool                 `json:"done,omitempty"`
}

// Fetch is `berth node fetch`, which only the worker starts. It runs as the
// unprivileged account, in a pid namespace of its own, with a fixed
// environment, and in the work folder. in is its standard input, out its
// descriptor 3, dir its working directory. Every failure goes to out; the
// error means that out is broken.
func Fetch(ctx context.Context, opts imagecache.FetchOptions, in io.Reader, out io.Writer, dir string) error {
	events := json.NewEncoder(out)
	var req FetchRequest
	if err := json.NewDecoder(io.LimitReader(in, 2*maxReference)).Decode(&req); err != nil {
		return fmt.Errorf("read the worker's request: %w", err)
	}
	// One goroutine at a time calls it, and none after Fetch has returned. A
	// write that fails says that the worker is gone; so will the kernel.
	opts.Progress = func(p imagecache.Progress) { _ = events.Encode(FetchEvent{Progress: &p}) }
	last, err := fetch(ctx, opts, req, dir)
	if err != nil {
		last = FetchEvent{Failure: fault.NewMessage(err), Disk: imagecache.IsDisk(err)}
	}
	return events.Encode(last)
}

func fetch(ctx context.Context, opts imagecache.FetchOptions, req FetchRequest, dir string) (FetchEvent, error) {
	ref, err := imagecache.ParseReference(req.Image)
	if err != nil {
		return FetchEvent{}, err
	}
	if ref.Kind() != imagecache.Registry {
		return FetchEvent{}, &fault.Error{
			Op: "prepare the image", Arg: req.Image, Blame: fault.User,
			Remedy: "name an image in a registry, or push this one to a registry first",
			Err:    errors.New("the node's store takes images from registries only"),
		}
	}
	if !req.Digest.IsZero() {
		return FetchEvent{Done: true}, imagecache.Fetch(ctx, ref, req.Digest, dir, opts)
	}
	opts.Progress(imagecache.Progress{Phase: imagecache.PhaseResolve})
	d, err := imagecache.Resolve(ctx, ref, opts.Platform, opts.Network)
	return FetchEvent{Digest: &d}, err
}
