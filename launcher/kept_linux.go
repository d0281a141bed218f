package launcher

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/berth-hpc/berth/fault"
	"golang.org/x/sys/unix"
)

// What a job wants of a container's name.
const (
	// KeptAuto joins the container if it runs in the job, else starts it with
	// what was kept, else makes it.
	KeptAuto = "auto"
	// KeptCreate makes it, and fails if there is one.
	KeptCreate = "create"
	// KeptExec joins it, and fails if it does not run.
	KeptExec = "exec"
	// KeptNoExec is KeptAuto without joining.
	KeptNoExec = "no_exec"
)

// A Kept names a container of a job whose changes are kept on the node, below a
// folder of the user's (package changes).
type Kept struct {
	Name string `json:"name"`
	Mode string `json:"mode"`
	// Folder is where containers are, as the site writes it (Expand).
	Folder string `json:"folder"`
	// OfJob has the job's containers below a folder of its own, which goes with
	// the job.
	OfJob bool `json:"ofJob,omitempty"`
	// Expiry is how long a container is kept after its last use, Quota how many
	// bytes the user's may take together before another one starts; 0 for ever
	// and for no limit.
	Expiry time.Duration `json:"expiry,omitempty"`
	Quota  int64         `json:"quota,omitempty"`
	// Reference and Digest are the image that the container is made of.
	Reference string `json:"reference,omitempty"`
	Digest    string `json:"digest,omitempty"`
	// Look asks what there is (Creation.Look), Forget has all containers of the
	// job removed (Forget). Otherwise the container is made.
	Look   bool `json:"look,omitempty"`
	Forget bool `json:"forget,omitempty"`
}

// ParseKept reads NAME[:MODE]; a name JOB.STEP is of a container without one.
func ParseKept(s string) (*Kept, error) {
	name, mode, _ := strings.Cut(s, ":")
	if mode == "" {
		mode = KeptAuto
	}
	if !slices.Contains([]string{KeptAuto, KeptCreate, KeptExec, KeptNoExec}, mode) || strings.HasSuffix(s, ":") {
		return nil, &fault.Error{
			Op: "name container", Arg: fmt.Sprintf("%q", s), Blame: fault.User, Err: errors.New("no such mode"),
			Remedy: "write --container-name=NAME, or NAME: with one of auto, create, exec, no_exec",
		}
	}
	if name == "" {
		return nil, &fault.Error{
			Op: "name container", Arg: fmt.Sprintf("%q", s), Blame: fault.User, Err: errors.New("the name is empty"),
			Remedy: "write --container-name=NAME",
		}
	}
	return &Kept{Name: name, Mode: mode}, nil
}

// A Found is what there is of a container (Kept.Look). All of it is the user's
// word.
type Found struct {
	// Reference and Digest are the image that it was made of; both are empty
	// where there is no container.
	Reference string `json:"reference,omitempty"`
	Digest    string `json:"digest,omitempty"`
	// Running says that it runs; its namespaces come along then. Remap and
	// Unshare are as in Marker.
	Running bool     `json:"running,omitempty"`
	Remap   bool     `json:"remap,omitempty"`
	Unshare []string `json:"unshare,omitempty"`

	// Container and Users are those of one that runs.
	Container *Container      `json:"-"`
	Users     *UserNamespaces `json:"-"`
}

// take takes the namespaces of a container that runs, when they are what they
// should be for a user: the process that sent them ran as that user.
func (f *Found) take(files []*os.File, u User) error {
	kinds, err := ParseUnshare(f.Unshare)
	switch {
	case err != nil:
	case slices.Contains(kinds, UnsharePID):
		err = errors.New("it is in a pid namespace of its own, which tasks of a scheduler can't join")
	case len(files) != 4+len(kinds):
		err = fmt.Errorf("got %d descriptors", len(files))
	default:
		users := &UserNamespaces{Outer: files[2], Inner: files[3]}
		if f.Remap {
			err = checkOwner(users.Outer, u.UID)
		} else {
			err = users.Check(u.UID)
		}
		err = errors.Join(err, checkNamespaces(files[0], files[4:], kinds, users.Outer), checkBelongs(files[0], users.Outer))
	}
	if err != nil {
		closeAll(files)
		return fmt.Errorf("join the container: %w", err)
	}
	f.Container, f.Users = &Container{Mount: files[0], Result: files[1]}, &UserNamespaces{Outer: files[2], Inner: files[3]}
	for i, kind := range kinds {
		f.Container.Own = append(f.Container.Own, Namespace{kind, files[4+i]})
	}
	return nil
}

// checkBelongs refuses a mount namespace that is not of the container's N1.
func checkBelongs(mount, outer *os.File) error {
	owner, err := nsIoctlFile(mount, unix.NS_GET_USERNS)
	if err != nil {
		return err
	}
	defer owner.Close()
	return sameNamespace(owner, outer)
}

// ErrKeptInUse is the cause when a container began to run, or was removed,
// after Look: look again.
var ErrKeptInUse = errors.New("the container is in use")
