package cluster

import (
	"net"
	"runtime"

	"golang.org/x/sys/unix"
)

// Listen opens a socket in the network of one of the machines, for a server
// that lives in the test's own process.
func (c *Cluster) Listen(machine, address string) net.Listener {
	c.t.Helper()
	network := func(process string) int {
		fd, err := unix.Open("/proc/"+process+"/ns/net", unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			c.t.Fatal(err)
		}
		return fd
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	own, theirs := network("thread-self"), network(c.PID(machine))
	defer unix.Close(own)
	defer unix.Close(theirs)
	if err := unix.Setns(theirs, unix.CLONE_NEWNET); err != nil {
		c.t.Fatal(err)
	}
	l, err := net.Listen("tcp", address)
	if back := unix.Setns(own, unix.CLONE_NEWNET); back != nil {
		c.t.Fatal(back)
	}
	if err != nil {
		c.t.Fatal(err)
	}
	return l
}
