// Package signals keeps what the caller of a program ignores and blocks, for
// the program that it becomes; Go's runtime does not. See signals.h.
package signals

// #cgo CFLAGS: -std=gnu11 -Wall -Wextra -Werror -Wno-unused-parameter -O2 -D_GNU_SOURCE
// #include "signals.h"
import "C"

import "syscall"

// Ignored says whether a signal was ignored when this process began. Those of
// os/signal know it of SIGHUP and SIGINT alone.
func Ignored(sig syscall.Signal) bool { return bool(C.signals_ignored(C.int(sig))) }

// Restore ignores the signals that were ignored when this process began, and
// blocks in the calling thread those that were blocked. It is for a process
// that becomes another program by the next call in the same thread: children
// of its own can't be waited for afterwards, if SIGCHLD was ignored.
func Restore() { C.signals_restore() }
