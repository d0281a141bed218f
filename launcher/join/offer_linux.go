// Package join makes processes tasks of containers that exist already. What
// happens in tasks is C, because they are single-threaded and must be fast:
//
//	join.c       enters a container, sets a task's environment
//	task.c       … and becomes a command           (the program berth-join)
//	standby.c       keeps a container ready           (berth-join --standby)
//	identity.c   which container a `berth run` would get
//	ready.c      takes one that stands ready
//	front.c      … before Go begins, in every program that imports this package
//
// The Slurm plugin compiles join.c and wire.c, too. The Go part here is the
// other end of ready.c: it has a holder started.
package join

// #cgo CFLAGS: -std=gnu11 -Wall -Wextra -Werror -O2 -D_GNU_SOURCE
// #include <stdlib.h>
// #include "front.h"
// #include "ready.h"
import "C"

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"syscall"
	"time"
	"unsafe"

	"github.com/berth-hpc/berth/launcher"
	"github.com/berth-hpc/berth/launcher/wire"
	"golang.org/x/sys/unix"
)

// An Offer is a container that is to stand ready for later runs, and on what it
// depends that it is theirs, too.
type Offer struct {
	Join string // berth-join
	// Words are the arguments of the run up to the image's name, without those
	// of the command: "run", options, image.
	Words []string
	Idle  time.Duration // how long it waits for the next run
	Until time.Duration // for how long, from now, a run may take it without asking a registry

	Users     *launcher.UserNamespaces
	Container *launcher.Container
	// Server is the end of a pipe that closes with the image's server; nil
	// where nobody serves the image.
	Server *os.File
	// Mounts is what OpenMountTable returned before the container was made.
	Mounts *os.File

	Files     []string          // what was read; a run of its own begins when one has changed, or appears
	Variables map[string]string // of the environment, as they were
	Unset     []string          // variables that were not there
	Endings   []string          // how no variable ends that is not among Variables

	Command            []string // the image's own
	Remove, Keep, Sets []string // what becomes of a task's environment: names, names, NAME=VALUE
}

// OpenMountTable opens what tells a holder that something was mounted since.
func OpenMountTable() (*os.File, error) {
	// os.Open would poll it, which is the sign itself.
	fd, err := unix.Open("/proc/self/mountinfo", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	return os.NewFile(uintptr(fd), "mountinfo"), os.NewSyscallError("open mountinfo", err)
}

// ErrNotReady is why a container was not offered where that is nobody's fault.
var ErrNotReady = errors.New("no container can stand ready here")

// Start has a process of its own hold the container ready, unless one does
// already for the same words, and returns when it can be found. It must be called by a process of the
// session in which it is to be used.
func (o *Offer) Start(ctx context.Context) error {
	id, err := o.identity()
	if err != nil {
		return err
	}
	defer C.free(unsafe.Pointer(id))
	offer, err := o.message(C.GoStringN(&id.text[0], C.int(id.len)))
	if err != nil {
		return err
	}
	defer offer.Close()
	f, err := openFolder(true)
	if err != nil {
		return err
	}
	defer f.Close()
	// Of runs that begin together one goes on.
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return fmt.Errorf("%w: another run is at it", ErrNotReady)
	}
	name := identityName(id)
	var pid C.int
	cname := C.CString(name)
	defer C.free(unsafe.Pointer(cname))
	switch C.ready_look(C.int(f.Fd()), cname, id, &pid) {
	case C.READY_GOOD:
		return nil
	case C.READY_STALE:
		f.end(name, int(pid))
	}
	return o.hold(ctx, f, name, offer)
}

func (o *Offer) identity() (*C.struct_identity, error) {
	id := (*C.struct_identity)(C.calloc(1, C.sizeof_struct_identity))
	C.identity_of_process(id)
	for _, w := range o.Words {
		word := C.CString(w)
		C.identity_add(id, word)
		C.free(unsafe.Pointer(word))
	}
	if id.failed {
		C.free(unsafe.Pointer(id))
		return nil, fmt.Errorf("%w: the run can't be told from others", ErrNotReady)
	}
	return id, nil
}

func identityName(id *C.struct_identity) string {
	var name [C.IDENTITY_NAME]C.char
	C.identity_name(id, &name[0])
	return C.GoString(&name[0])
}

// message is the offer as ready.h has it, in a memory file.
func (o *Offer) message(identity string) (*os.File, error) {
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &now); err != nil {
		return nil, os.NewSyscallError("clock_gettime", err)
	}
	m := wire.Message{
		{Key: "identity", Value: identity},
		{Key: "until", Value: strconv.FormatInt(now.Sec+int64(o.Until/time.Second), 10)},
	}
	for name, value := range o.Variables {
		m = m.Add("sees", name+"="+value)
	}
	m = addAll(addAll(m, "misses", o.Unset), "ending", o.Endings)
	for _, path := range o.Files {
		m = append(m, fileRecord(path))
	}
	for _, s := range o.Container.Sources {
		m = append(m, sourceRecord(s))
	}
	m = addAll(addAll(addAll(addAll(m, "argv", o.Command), "unset", o.Remove), "set", o.Sets), "keep", o.Keep)
	data, err := m.Encode()
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrNotReady, err)
	}
	fd, err := unix.MemfdCreate("berth-offer", unix.MFD_CLOEXEC)
	if err != nil {
		return nil, os.NewSyscallError("memfd_create", err)
	}
	f := os.NewFile(uintptr(fd), "offer")
	if _, err := f.Write(data); err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

func addAll(m wire.Message, key string, values []string) wire.Message {
	for _, v := range values {
		m = m.Add(key, v)
	}
	return m
}

func fileRecord(path string) wire.Record {
	var st unix.Stat_t
	if unix.Stat(path, &st) != nil {
		return wire.Record{Key: "absent", Value: path}
	}
	return wire.Record{Key: "file", Value: fmt.Sprintf("%d:%d:%d:%d:%d:%s", st.Dev, st.Ino, st.Size, st.Mtim.Sec, st.Mtim.Nsec, path)}
}

func sourceRecord(s launcher.Source) wire.Record {
	if s.Ino == 0 {
		return wire.Record{Key: "absent", Value: s.Path}
	}
	return wire.Record{Key: "source", Value: fmt.Sprintf("%d:%d:%s", s.Dev, s.Ino, s.Path)}
}

// hold binds the name and starts the holder.
func (o *Offer) hold(ctx context.Context, f folder, name string, offer *os.File) error {
	session, err := sessionLeader()
	if err != nil {
		return err
	}
	defer session.Close()
	// Not f, whose lock the holder would keep.
	own, err := openFolder(false)
	if err != nil {
		return err
	}
	defer own.Close()
	socket, err := f.bind(name)
	if err != nil {
		return err
	}
	defer socket.Close()
	cmd := exec.CommandContext(ctx, o.Join, "--standby", name, strconv.Itoa(int(o.Idle/time.Second)))
	cmd.Args[0] = "berth-join"
	cmd.Env, cmd.Dir = []string{}, "/"
	cmd.ExtraFiles = []*os.File{ // as in standby.h
		own.File, socket, o.Users.Outer, o.Container.Mount, o.Users.Inner, o.Container.Result, offer, session, o.Mounts,
	}
	if o.Server != nil {
		cmd.ExtraFiles = append(cmd.ExtraFiles, o.Server)
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Run(); err != nil {
		return errors.Join(fmt.Errorf("start %s --standby: %w", o.Join, err), unix.Unlinkat(int(f.Fd()), name, 0))
	}
	return nil
}

// sessionLeader is a pidfd of the process whose end is the session's.
func sessionLeader() (*os.File, error) {
	sid, err := unix.Getsid(0)
	if err != nil || sid <= 0 {
		return nil, fmt.Errorf("%w: no session", ErrNotReady)
	}
	fd, err := unix.PidfdOpen(sid, 0)
	if err != nil {
		return nil, fmt.Errorf("%w: the session's leader: %w", ErrNotReady, err)
	}
	return os.NewFile(uintptr(fd), "session"), nil
}
