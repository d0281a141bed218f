package store

import (
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

// forbidFlock makes flock(2), and locks by fcntl(2), fail for this process, as
// on a file system that has none.
func forbidFlock(t *testing.T) {
	t.Helper()
	const nr, arg1 = 0, 24 // offsets in struct seccomp_data
	load := func(at uint32) unix.SockFilter {
		return unix.SockFilter{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: at}
	}
	equal := func(k uint32, yes, no uint8) unix.SockFilter {
		return unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, Jt: yes, Jf: no, K: k}
	}
	end := func(k uint32) unix.SockFilter { return unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: k} }
	filter := []unix.SockFilter{
		load(nr),
		equal(unix.SYS_FLOCK, 6, 0),
		equal(unix.SYS_FCNTL, 0, 4),
		load(arg1),
		equal(unix.F_SETLK, 3, 0),
		equal(unix.F_SETLKW, 2, 0),
		equal(unix.F_OFD_SETLK, 1, 0),
		end(unix.SECCOMP_RET_ALLOW),
		end(unix.SECCOMP_RET_ERRNO | uint32(unix.ENOSYS)),
	}
	program := unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		t.Fatal(err)
	}
	_, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, unix.SECCOMP_FILTER_FLAG_TSYNC, uintptr(unsafe.Pointer(&program)))
	if errno != 0 {
		t.Fatal("seccomp:", errno)
	}
	if err := unix.Flock(0, unix.LOCK_SH); err != unix.ENOSYS {
		t.Fatalf("flock still works: %v", err)
	}
}
