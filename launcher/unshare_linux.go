package launcher

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/berth-hpc/berth/fault"
	"golang.org/x/sys/unix"
)

// The kinds of namespaces that a container can have of its own, beside that of
// its mounts. A pid namespace is made by the first task (berth-join), and
// goes with it; the others are made with the container.
const (
	UnshareIPC = "ipc" // System V IPC, POSIX queues, and with them /dev/shm
	UnshareNet = "net" // a network with nothing but a loopback
	UnsharePID = "pid"
	UnshareUTS = "uts" // host name
)

// kinds are their flags for clone(2).
func kinds() map[string]int {
	return map[string]int{
		UnshareIPC: unix.CLONE_NEWIPC, UnshareNet: unix.CLONE_NEWNET,
		UnsharePID: unix.CLONE_NEWPID, UnshareUTS: unix.CLONE_NEWUTS,
	}
}

// A Namespace is one of a container's own.
type Namespace struct {
	Kind string
	*os.File
}

// ParseUnshare takes kinds of namespaces as users write them, and returns each
// once, in a fixed order.
func ParseUnshare(words []string) ([]string, error) {
	known := kinds()
	for _, w := range words {
		if known[w] == 0 {
			return nil, &fault.Error{
				Op: "unshare", Arg: fmt.Sprintf("%q", w), Blame: fault.User, Err: errors.New("no such kind of namespace"),
				Remedy: "write some of ipc, net, pid, uts",
			}
		}
	}
	out := slices.Clone(words)
	slices.Sort(out)
	return slices.Compact(out), nil
}

// Made are the kinds of namespaces that are made with the container.
func (r *Request) Made() []string {
	return slices.DeleteFunc(slices.Clone(r.Unshare), func(kind string) bool { return kind == UnsharePID })
}

// checkOwn refuses a namespace that is not of its kind, or not owned by N1.
func checkOwn(f *os.File, kind string, outer *os.File) error {
	if err := checkNSType(f, kinds()[kind]); err != nil {
		return fmt.Errorf("the container's %s namespace: %w", kind, err)
	}
	owner, err := nsIoctlFile(f, unix.NS_GET_USERNS)
	if err != nil {
		return fmt.Errorf("the container's %s namespace: %w", kind, err)
	}
	defer owner.Close()
	if err := sameNamespace(owner, outer); err != nil {
		return fmt.Errorf("the container's %s namespace is not its own: %w", kind, err)
	}
	return nil
}

// Require says which of these kinds of namespaces the container has not of its
// own.
func (r *Running) Require(unshare []string) error {
	names := map[string]string{UnshareIPC: "IPC", UnshareNet: "network", UnsharePID: "PID", UnshareUTS: "UTS"}
	var missing []string
	for _, kind := range unshare {
		if !slices.Contains(r.Unshare, kind) {
			missing = append(missing, "not in a separate "+names[kind]+" namespace")
		}
	}
	if len(missing) == 0 {
		return nil
	}
	return errors.New(strings.Join(missing, ", "))
}
