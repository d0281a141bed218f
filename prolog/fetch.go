package prolog

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"sync/atomic"

	"github.com/berth-hpc/berth/fault"
	"github.com/berth-hpc/berth/imagecache"
	"github.com/berth-hpc/berth/imagecache/cosign"
	"github.com/berth-hpc/berth/imagecache/credentials"
	"github.com/berth-hpc/berth/imagecache/store"
)

// A FetchRequest is what the worker asks of the fetcher, `berth node fetch`,
// as one JSON value on its standard input. Without a digest the fetcher only
// says which one the reference stands for; with one it gets that image and
// has it converted; what is to be published beside the squashfs file it puts into
// its working directory. Once it knows how much will be written it says so (Need), and goes on when goOn follows on its
// input; if that ends instead, there is no room.
type FetchRequest struct {
	Image  string       `json:"image"`
	Digest store.Digest `json:"digest"`
	// Platform is which one is meant where there is no digest, as ParsePlatform
	// reads it.
	Platform string `json:"platform,omitempty"`
	// Rate bounds the transfer of layers, in bytes per second; zero does not.
	Rate int64 `json:"rate_bytes_per_second,omitempty"`
	// MaxFile bounds the files that it may write, in bytes; zero does not. The
	// fetcher keeps to it before it hears from a registry, and cannot go back.
	MaxFile int64 `json:"max_file_bytes,omitempty"`
	// Measure has the fetcher ask for the manifest of Digest alone, and answer
	// with Compressed.
	Measure bool `json:"measure,omitempty"`
	// Confirm has the fetcher ask for the manifest alone: whether the registry
	// lets the user at it.
	Confirm bool `json:"confirm,omitempty"`
	// Login, the user's, is for the registry's own host, and for the token
	// service to which that one sends it. It is shown when nobody gets in
	// without. Mirrors get it only if the site says that they take it.
	Login *credentials.Revealed `json:"login,omitempty"`
	// Signed has it look for signatures of Digest alone, and answer with
	// Verified.
	Signed *SignatureRequest `json:"signed,omitempty"`
}

// maxLogin bounds a login in a request, in bytes; see credentials.ReadAnswer.
const maxLogin = 128 << 10

// A FetchEvent is what the fetcher answers on descriptor 3: one JSON value
// per line, exactly one field set, but for those of a Failure. Any number of
// Progress lines, and one Need, come first; the last line is Failure, Digest,
// Compressed, Verified or Done.
type FetchEvent struct {
	Progress *imagecache.Progress `json:"progress,omitempty"`
	Need     *int64               `json:"need_bytes,omitempty"`
	Failure  *fault.Message       `json:"failure,omitempty"`
	// Of a Failure: the work folder's disk is at fault, and it is full.
	Disk bool `json:"disk,omitempty"`
	Full bool `json:"full,omitempty"`
	// Of a Failure: with a login, or another one, the registry might answer
	// otherwise.
	Refused bool          `json:"refused,omitempty"`
	Digest  *store.Digest `json:"digest,omitempty"`
	Done    bool          `json:"done,omitempty"`
	// Of Digest and Done: nobody's login was needed.
	Public bool `json:"public,omitempty"`
	// Compressed is how much the layers take, as they are transferred.
	Compressed *int64 `json:"compressed_bytes,omitempty"`
	// Verified is what the keys' owners have signed.
	Verified *[]cosign.Verified `json:"verified,omitempty"`
}

// goOn is the worker's answer to Need.
const goOn = `{"go":true}` + "\n"

// errNoRoom is what a fetcher says that may not go on; its worker knows why.
var errNoRoom = &fault.Error{Op: "reserve space", Blame: fault.Site, Remedy: "see what its worker says", Err: errors.New("the worker has no room for the image")}

// Fetch is `berth node fetch`, which only the worker starts. It runs as the
// unprivileged account, in a pid namespace of its own, with a fixed
// environment, and in the work folder. in is its standard input, out its
// descriptor 3, converter descriptor 4: a stream to the process that converts
// what it gets, where that is wanted. dir is its working directory. Every
// failure goes to out; the error means that out is broken.
func Fetch(ctx context.Context, opts imagecache.FetchOptions, in io.Reader, out io.Writer, converter io.ReadWriter, dir string) error {
	// It will hold a login, perhaps.
	if err := credentials.Guard(); err != nil {
		return err
	}
	opts.Delegate = converter
	events := json.NewEncoder(out)
	var req FetchRequest
	requests := json.NewDecoder(io.LimitReader(in, 2*maxReference+maxLogin+maxSignatureKeys))
	if err := requests.Decode(&req); err != nil {
		return fmt.Errorf("read the worker's request: %w", err)
	}
	if err := limitFiles(req.MaxFile); err != nil {
		return err
	}
	// One goroutine at a time calls it, and none after Fetch has returned. A
	// write that fails says that the worker is gone; so will the kernel.
	opts.Progress = func(p imagecache.Progress) { _ = events.Encode(FetchEvent{Progress: &p}) }
	opts.Reserve = func(_ context.Context, bytes int64) error {
		if err := events.Encode(FetchEvent{Need: &bytes}); err != nil {
			return err
		}
		var answer struct{ Go bool }
		if err := requests.Decode(&answer); err != nil || !answer.Go {
			return errNoRoom
		}
		return nil
	}
	last, err := fetch(ctx, opts, req, dir)
	if err != nil {
		last = FetchEvent{
			Failure: fault.NewMessage(err), Disk: imagecache.IsDisk(err), Full: imagecache.IsFull(err), Refused: imagecache.IsRefused(err),
		}
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
			Remedy: "name an image in a registry, or make a squashfs file of it and name that: berth save " + req.Image + " x.sqsh",
			Err:    errors.New("the node's store takes images from registries only"),
		}
	}
	if opts.Platform, err = imagecache.ParsePlatform(req.Platform); err != nil {
		return FetchEvent{}, err
	}
	opts.Rate = req.Rate
	var login *oneLogin
	opts.Network, login = withLogin(opts.Network, ref, req.Login)
	var last FetchEvent
	switch {
	case req.Confirm:
		opts.Progress(imagecache.Progress{Phase: imagecache.PhaseResolve})
		last.Done, err = true, imagecache.Confirm(ctx, ref, req.Digest, opts.Network)
	case req.Signed != nil:
		var all []cosign.Verified
		all, err = verifySignatures(ctx, ref, req.Digest, *req.Signed, opts)
		last.Verified = &all
	case req.Measure:
		var bytes int64
		bytes, err = imagecache.Compressed(ctx, ref, req.Digest, opts.Network)
		last.Compressed = &bytes
	case !req.Digest.IsZero():
		last.Done, err = true, imagecache.Fetch(ctx, ref, req.Digest, dir, opts)
	default:
		opts.Progress(imagecache.Progress{Phase: imagecache.PhaseResolve})
		var d store.Digest
		d, err = imagecache.Resolve(ctx, ref, opts.Platform, opts.Network)
		last.Digest = &d
	}
	last.Public = !login.shown.Load()
	return last, err
}

// oneLogin is the login of one user for one registry. It implements
// imagecache.Logins.
type oneLogin struct {
	host  string
	login credentials.Login
	shown atomic.Bool // to a registry that let nobody in without
}

// withLogin has the registry of ref asked with a login, where it wants one; nil
// is none.
func withLogin(net imagecache.Network, ref imagecache.Reference, login *credentials.Revealed) (imagecache.Network, *oneLogin) {
	l := &oneLogin{host: credentials.Host(ref.Host())}
	if login != nil {
		l.login = login.Login()
		net.Credentials, net.Hidden = imagecache.Keychain(l), true
	}
	return net, l
}

// Login implements imagecache.Logins: other hosts, mirrors among them, get none.
func (l *oneLogin) Login(_ context.Context, t credentials.Target) (credentials.Login, error) {
	if credentials.Host(t.Registry) != l.host {
		return credentials.Login{}, nil
	}
	l.shown.Store(true)
	return l.login, nil
}
