package prolog

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/berth-hpc/berth/fault"
	"github.com/berth-hpc/berth/imagecache"
	"github.com/berth-hpc/berth/imagecache/squashfs"
	"github.com/berth-hpc/berth/prolog/sandbox"
)

// Convert is `berth node convert`, which only the worker starts: as root, in
// namespaces of its own (sandbox.Attributes). It shuts itself in as the account
// and then converts the layers that the fetcher sends over stream, into
// rootfs.sqfs in the folder at work. The error means that the stream is broken;
// what is wrong with an image goes to the fetcher.
func Convert(ctx context.Context, cfg Config, c imagecache.Converter, stream io.ReadWriter, work string) error {
	uid, gid, err := cfg.account()
	if err != nil {
		return errAccount(cfg.Account, err)
	}
	err = sandbox.Enter(sandbox.Cell{
		UID: uid, GID: gid, Base: cfg.RunDir, Work: work,
		Programs: c.Name() == imagecache.Umoci{}.Name(), FileSize: uint64(cfg.MaxImage),
	})
	if err != nil {
		return err
	}
	return imagecache.Serve(ctx, stream, c, sandbox.WorkDir)
}

// Bounds on what checking an image may cost: address space in bytes and
// seconds of a processor. An image with as many files as squashfs.Check takes
// by default needs a quarter of the first and some ten of the second.
const (
	checkMemory = 6 << 30
	checkCPU    = 300
)

// A checkAnswer is the one line that the checker prints.
type checkAnswer struct {
	Good    bool           `json:"good,omitempty"`
	Failure *fault.Message `json:"failure,omitempty"`
}

// Check is `berth node check`, which only the worker starts, like Convert but
// as another user and without a folder: it reads the structure of a squashfs
// file and says whether the kernel may mount it. What made the file has read
// hostile layers and cannot be asked.
func Check(cfg Config, file *os.File, out io.Writer) error {
	uid, gid, err := lookupAccount(cfg.Checker)
	if err != nil {
		return errAccount(cfg.Checker, err)
	}
	if err := sandbox.Enter(sandbox.Cell{UID: uid, GID: gid, Base: cfg.RunDir, Memory: checkMemory, CPU: checkCPU}); err != nil {
		return err
	}
	a := checkAnswer{Good: true}
	if err := checkStructure(file); err != nil {
		a = checkAnswer{Failure: fault.NewMessage(err)}
	}
	return json.NewEncoder(out).Encode(a)
}

func checkStructure(file *os.File) error {
	info, err := file.Stat()
	if err == nil {
		err = squashfs.Check(file, info.Size(), squashfs.CheckOptions{})
	}
	if errors.Is(err, squashfs.ErrStructure) {
		return &fault.Error{
			Op: "check the converted image", Blame: fault.Bug,
			Remedy: "report this as a bug, or as an image made to attack the converter", Err: err,
		}
	}
	if err != nil {
		return fmt.Errorf("check the converted image: %w", err)
	}
	return nil
}
