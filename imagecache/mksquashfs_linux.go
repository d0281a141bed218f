package imagecache

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/berth-hpc/berth/fault"
)

// squash runs mksquashfs on tree. Any file that it cannot read is an error
// (by itself it would warn and store an empty one), and the same tree
// gives the same bytes.
func (u Umoci) squash(ctx context.Context, tree, out string, progress ProgressFunc) error {
	program, err := u.program()
	if err != nil {
		return err
	}
	var said bytes.Buffer
	cmd := exec.CommandContext(ctx, program, u.arguments(tree, out)...)
	cmd.Env = []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL=C"} // no SOURCE_DATE_EPOCH
	cmd.Stdout, cmd.Stderr = &said, &said
	cmd.WaitDelay = 5 * time.Second
	// An orphan would go on writing into a folder that is swept.
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: unix.SIGKILL}
	f, err := os.OpenFile(out, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o644)
	if err != nil {
		return err
	}
	stop := watchSize(out, progress)
	err = runLocked(cmd)
	stop()
	if err != nil && ctx.Err() == nil {
		f.Close()
		return squashError(err, said.String())
	}
	// It does not look at what close says, where a network file system reports a
	// full disk. Who had the file open before hears of that by a sync.
	return errors.Join(err, context.Cause(ctx), f.Sync(), f.Close())
}

func (u Umoci) program() (string, error) {
	if u.Mksquashfs != "" {
		return u.Mksquashfs, nil
	}
	program, err := exec.LookPath("mksquashfs")
	if err != nil {
		return "", &fault.Error{
			Op: "find", Arg: "mksquashfs", Blame: fault.Site,
			Remedy: "install squashfs-tools on this machine", Err: err,
		}
	}
	return program, nil
}

// arguments: zstd 3 and blocks of 128 KiB were measured to be the best trade
// of CPU against size and read speed.
func (u Umoci) arguments(tree, out string) []string {
	processors := u.Processors
	if processors <= 0 {
		processors = runtime.GOMAXPROCS(0)
	}
	return []string{
		tree, out, "-noappend", "-no-recovery", "-no-progress", "-quiet", "-exit-on-error",
		"-comp", "zstd", "-Xcompression-level", "3", "-b", "131072",
		"-all-root", "-no-xattrs", "-reproducible", "-mkfs-time", "0",
		"-processors", strconv.Itoa(processors), "-mem", "512M",
	}
}

// runLocked runs cmd from a thread that stays: the parent-death signal is sent
// when the thread that forked ends, not the process.
func runLocked(cmd *exec.Cmd) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	return cmd.Run()
}

func squashError(err error, said string) error {
	said = strings.TrimSpace(said)
	if strings.Contains(said, "No space left on device") {
		return unix.ENOSPC
	}
	lines := strings.Split(said, "\n")
	return &fault.Error{
		Op: "run", Arg: "mksquashfs", Blame: fault.Site,
		Remedy: "squashfs-tools 4.4 or later with zstd are needed; look at what it said and at the disk",
		Err:    fmt.Errorf("%w: %s", err, oneLine(strings.Join(lines[max(0, len(lines)-3):], "; "))),
	}
}

// watchSize reports how much of out is written, until it is stopped.
func watchSize(out string, progress ProgressFunc) (stop func()) {
	if progress == nil {
		return func() {}
	}
	progress(Progress{Phase: PhaseSquash})
	end, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		tick := time.NewTicker(reportEvery * 5)
		defer tick.Stop()
		for {
			select {
			case <-end:
				return
			case <-tick.C:
				if info, err := os.Stat(out); err == nil {
					progress(Progress{Phase: PhaseSquash, Done: info.Size()})
				}
			}
		}
	}()
	return func() { close(end); <-ended }
}
