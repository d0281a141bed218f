package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/berth-hpc/berth/fault"
	"github.com/berth-hpc/berth/imagecache"
	"github.com/berth-hpc/berth/imagecache/credentials"
)

// packCmd writes the changes in an upper folder as a tar file. berth save
// starts it, see packPrivileged.
type packCmd struct {
	Upper string `arg:""`
}

// Run writes the stream to standard output and a failure to descriptor 3.
func (c *packCmd) Run(ctx context.Context, s *session) error {
	err := imagecache.Changes{Upper: c.Upper}.WriteTar(ctx, s.stdout)
	if err == nil {
		return nil
	}
	return errors.Join(err, json.NewEncoder(os.NewFile(3, "failure")).Encode(fault.NewMessage(err)))
}

// packPrivileged starts packCmd as the user in a user namespace of its own,
// with the right to pass by what files' modes forbid there: files of the user's
// own, which their container may have closed to everybody. Nothing else is
// theirs in that namespace.
func packPrivileged(ctx context.Context, upper string) (io.ReadCloser, error) {
	cmd := exec.CommandContext(ctx, "/proc/self/exe", "pack", upper)
	cmd.Args[0] = "berth"
	uid, gid := os.Geteuid(), os.Getegid()
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  syscall.CLONE_NEWUSER,
		UidMappings: []syscall.SysProcIDMap{{ContainerID: uid, HostID: uid, Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{ContainerID: gid, HostID: gid, Size: 1}},
		AmbientCaps: []uintptr{unix.CAP_DAC_OVERRIDE, unix.CAP_DAC_READ_SEARCH},
	}
	p := &packing{cmd: cmd}
	failure, w, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	p.failure, cmd.ExtraFiles, cmd.Stderr = failure, []*os.File{w}, &p.stderr
	if p.stream, err = cmd.StdoutPipe(); err == nil {
		err = credentials.ShowMemory(cmd.Start)
	}
	w.Close()
	if err != nil {
		failure.Close()
		return nil, explainNamespaces(err)
	}
	return p, nil
}

// A packing is the stream of a packCmd under way.
type packing struct {
	cmd     *exec.Cmd
	stream  io.ReadCloser
	failure *os.File
	stderr  bytes.Buffer
	ended   bool
}

// Read implements io.Reader. The end is an error unless the process ended well.
func (p *packing) Read(b []byte) (int, error) {
	n, err := p.stream.Read(b)
	if err == io.EOF {
		if end := p.end(); end != nil {
			err = end
		}
	}
	return n, err
}

func (p *packing) end() error {
	if p.ended {
		return nil
	}
	p.ended = true
	defer p.failure.Close()
	message, _ := io.ReadAll(io.LimitReader(p.failure, 1<<16))
	err := p.cmd.Wait()
	var m fault.Message
	if json.Unmarshal(message, &m) == nil {
		return m.Err()
	}
	if err != nil {
		return fault.Wrap("read the changes", "", fault.Bug, "", errors.Join(err, errors.New(lastLine(p.stderr.String()))))
	}
	return nil
}

// Close implements io.Closer.
func (p *packing) Close() error {
	if p.ended {
		return nil
	}
	_ = p.cmd.Process.Kill()
	_ = p.end()
	return nil
}
