package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/berth-hpc/berth/fault"
	"github.com/berth-hpc/berth/imagecache/store"
	"github.com/berth-hpc/berth/launcher"
)

// An ociState is state.json in the folder of a container that an OCI client
// made: what `berth oci state` needs to know of its process.
type ociState struct {
	ID      string    `json:"id"`
	PID     int       `json:"pid"`
	Start   uint64    `json:"start"` // of the process, in clock ticks since boot
	Bundle  string    `json:"bundle"`
	Created time.Time `json:"created"`
	// Run says that `berth oci run` became the process, so that nobody was
	// there to forget the container when it ended.
	Run         bool              `json:"run,omitempty"`
	Annotations map[string]string `json:"annotations,omitempty"`
}

// An ociFolder holds the states of one user's containers.
type ociFolder struct{ path string }

const (
	ociStateName = "state.json"
	// ociStartName is a pipe that is there while a container waits for its start.
	ociStartName = "start"
)

// ociRoot is the site's folder for states, like /tmp for everyone, and outside
// of what jobs see as theirs alone (job_container/tmpfs).
const ociRoot = "/run/berth-oci"

// openOCIFolder opens the user's folder, made when needed: root if it is given,
// else one in ociRoot, or where the user's session has its files.
func openOCIFolder(s *session, root string) (ociFolder, error) {
	if root == "" {
		root = s.ociRoot()
	}
	if err := os.Mkdir(root, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return ociFolder{}, fault.Wrap("make", root, fault.Site, "give another folder with --root", err)
	}
	var st unix.Stat_t
	err := unix.Lstat(root, &st)
	if err == nil && (st.Mode&unix.S_IFMT != unix.S_IFDIR || int(st.Uid) != s.user.uid || st.Mode&0o022 != 0) {
		err = errors.New("it is not a folder that belongs to you and that nobody else may write to")
	}
	return ociFolder{root}, fault.Wrap("use", root, fault.User, "give another folder with --root; root names the user with --user", err)
}

func (s *session) ociRoot() string {
	own := strconv.Itoa(s.user.uid)
	if st, err := os.Stat(ociRoot); err == nil && st.IsDir() {
		return filepath.Join(ociRoot, own)
	}
	if dir := s.env("XDG_RUNTIME_DIR"); filepath.IsAbs(dir) {
		return filepath.Join(dir, "berth-oci")
	}
	return "/tmp/berth-oci-" + own
}

// dir is the folder of one container. Ids are those of runc.
func (f ociFolder) dir(id string) (string, error) {
	if !regexp.MustCompile(`^[A-Za-z0-9_+.-]{1,200}$`).MatchString(id) || strings.Trim(id, ".") == "" {
		return "", &fault.Error{
			Op: "read the container's id", Arg: fault.Clean(id), Blame: fault.User,
			Err: errors.New("an id has letters, digits and _ + - . alone"),
		}
	}
	return filepath.Join(f.path, id), nil
}

func (f ociFolder) read(id string) (*ociState, string, error) {
	dir, err := f.dir(id)
	if err != nil {
		return nil, "", err
	}
	data, err := os.ReadFile(filepath.Join(dir, ociStateName))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, dir, errNoContainer(id)
	}
	var st ociState
	if err == nil {
		err = json.Unmarshal(data, &st)
	}
	if err == nil && st.Run && st.status(dir) == "stopped" {
		return nil, dir, errors.Join(errNoContainer(id), os.RemoveAll(dir))
	}
	return &st, dir, err
}

func errNoContainer(id string) error {
	return &fault.Error{Op: "find container", Arg: id, Blame: fault.User, Err: errors.New("there is none")}
}

func writeOCIState(dir string, st *ociState) error {
	data, err := json.Marshal(st)
	if err != nil {
		return err
	}
	tmp := filepath.Join(dir, "."+ociStateName)
	if err := os.WriteFile(tmp, append(data, '\n'), 0o600); err != nil {
		return err
	}
	return os.Rename(tmp, filepath.Join(dir, ociStateName))
}

// status is what the OCI runtime specification calls it.
func (st *ociState) status(dir string) string {
	p := st.process()
	if p == nil {
		return "stopped"
	}
	p.Close()
	if _, err := os.Lstat(filepath.Join(dir, ociStartName)); err == nil {
		return "created"
	}
	return "running"
}

// process opens a pidfd of the container's process, nil if it has ended.
// Another one may have its number by now, which the start time tells; one that
// nobody has waited for has ended, too, which the pidfd tells (pidfd_open(2)).
func (st *ociState) process() *os.File {
	fd, err := unix.PidfdOpen(st.PID, 0)
	if err != nil {
		return nil
	}
	p := os.NewFile(uintptr(fd), "pidfd")
	start, err := store.ProcessStart(st.PID)
	if err != nil || start != st.Start {
		p.Close()
		return nil
	}
	ended := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
	if n, err := unix.Poll(ended, 0); err != nil || n > 0 {
		p.Close()
		return nil
	}
	return p
}

// sameContainer lists the processes of this user in the same mount namespace
// as pid.
func sameContainer(pid int) []int {
	ns, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/mnt", pid))
	if err != nil {
		return nil
	}
	all, _ := launcher.Processes() // whatever it fails with, what it found counts
	var pids []int
	for _, other := range all {
		if link, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/mnt", other)); err == nil && link == ns && other != pid {
			pids = append(pids, other)
		}
	}
	return pids
}
