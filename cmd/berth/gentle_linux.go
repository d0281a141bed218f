package main

import (
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// beGentle makes this process, and all that it starts, give way to what else
// runs on the machine: the lowest priority for the CPU (nice 19), and the disk
// only when nobody else wants it (I/O class idle, where the disk's scheduler
// knows classes: BFQ). Both are properties of threads, so each thread gets them;
// later ones inherit them. That it fails is no reason not to go on.
func beGentle() {
	const whoProcess, classIdle, classShift = 1, 3, 13 // linux/ioprio.h
	for range 2 {                                      // a thread may have been born meanwhile
		entries, _ := os.ReadDir("/proc/self/task")
		for _, e := range entries {
			tid, err := strconv.Atoi(e.Name())
			if err != nil {
				continue
			}
			_ = unix.Setpriority(unix.PRIO_PROCESS, tid, 19)
			_, _, _ = unix.Syscall(unix.SYS_IOPRIO_SET, whoProcess, uintptr(tid), classIdle<<classShift)
		}
	}
}
