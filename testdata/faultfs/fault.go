package faultfs

import "syscall"

// A Fault is what happens at one operation.
type Fault struct {
	at   int
	what faultKind
	kill func(pid int)
}

type faultKind int

const (
	none faultKind = iota
	powerCut
	full
	fullOnce
	ioError
	killAfter
)

// PowerCut lets operation n and all after it fail with EIO, reading too.
func PowerCut(n int) Fault { return Fault{at: n, what: powerCut} }

// Full lets everything that needs space fail with ENOSPC from operation n on,
// until Heal.
func Full(n int) Fault { return Fault{at: n, what: full} }

// FullOnce lets operation n fail with ENOSPC, if it needs space.
func FullOnce(n int) Fault { return Fault{at: n, what: fullOnce} }

// IOError lets operation n fail with EIO.
func IOError(n int) Fault { return Fault{at: n, what: ioError} }

// Kill calls kill when operation n is done, before whoever asked for it hears
// of it. pid is the thread that asked; SIGKILL to it ends its process.
func Kill(n int, kill func(pid int)) Fault { return Fault{at: n, what: killAfter, kill: kill} }

// decide returns how o ends. It may cut the power. f.mu is held.
func (f *FS) decide(o *Op) syscall.Errno {
	here := o.N == f.fault.at
	space := o.needsSpace(f.dirty[o.change.ino])
	switch {
	case here && f.fault.what == powerCut:
		f.cut = true
		return syscall.EIO
	case here && f.fault.what == ioError:
		return syscall.EIO
	case here && f.fault.what == full:
		f.full = true
	case here && f.fault.what == fullOnce && space:
		return syscall.ENOSPC
	}
	if f.full && space {
		return syscall.ENOSPC
	}
	return 0
}

// step gives o its number, lets the fault have its way, and does o. f.mu is
// held.
func (f *FS) step(o Op) syscall.Errno {
	if f.cut {
		return syscall.EIO
	}
	o.N = len(f.ops) + 1
	if o.Err = f.decide(&o); f.cut {
		return o.Err
	}
	f.ops = append(f.ops, &o)
	if o.Err == 0 {
		f.live.apply(o.change)
	}
	f.note(&o)
	if f.fault.what == killAfter && o.N == f.fault.at {
		f.fault.kill(o.PID)
	}
	return o.Err
}

func (f *FS) isCut() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.cut
}

// note keeps account of which inodes have bytes that are not on disk.
func (f *FS) note(o *Op) {
	switch {
	case o.Err == 0 && o.change.data != nil:
		f.dirty[o.change.ino] = true
	case o.isSync() && (o.Kind != Close || o.Err != 0):
		delete(f.dirty, o.change.ino)
	}
}
