package store

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"strings"

	"github.com/berth-hpc/berth/fault"
)

// A Holder is the process that holds an image's lock in a cluster's store, as
// it says itself. It never changes while the lock is held.
type Holder struct {
	ID   string `json:"id"`   // of this one hold: random
	Host string `json:"host"` // the node's name
	Boot string `json:"boot"` // the node's boot id
	// The process: its pid namespace, its number there, and when it started,
	// because numbers are given away again (clock ticks since boot).
	Space string `json:"pid_namespace"`
	PID   int    `json:"pid"`
	Start uint64 `json:"start"`
}

// thisProcess returns what identifies the calling process on host.
func thisProcess(host string) (Holder, error) {
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return Holder{}, err
	}
	space, err := os.Readlink("/proc/self/ns/pid")
	if err != nil {
		return Holder{}, err
	}
	start, err := ProcessStart(os.Getpid())
	return Holder{
		Host: host, Boot: strings.TrimSpace(string(boot)),
		Space: space, PID: os.Getpid(), Start: start,
	}, err
}

// gone says whether h is certainly dead, which only its own host can tell: the
// host was booted since, or the process is no more. Host names are unique in a
// cluster; were two the same, work would be done twice.
func (h Holder) gone(self Holder) bool {
	if h.Host == "" || h.Host != self.Host {
		return false
	}
	if h.Boot != self.Boot {
		return true
	}
	if h.Space != self.Space {
		return false // its numbers mean nothing here
	}
	start, err := ProcessStart(h.PID)
	return errors.Is(err, fs.ErrNotExist) || err == nil && start != h.Start
}

// ProcessStart is when a process started, in clock ticks since boot: field 22
// of /proc/PID/stat (proc_pid_stat(5)), the 20th after the command's name,
// which may itself hold spaces and parentheses. It is fs.ErrNotExist for a
// process that is gone.
func ProcessStart(pid int) (uint64, error) {
	path := fmt.Sprintf("/proc/%d/stat", pid)
	data, err := os.ReadFile(path)
	if err != nil {
		return 0, err
	}
	fields := strings.Fields(string(data[strings.LastIndexByte(string(data), ')')+1:]))
	if len(fields) < 20 {
		return 0, fmt.Errorf("%s: %d fields", path, len(fields))
	}
	return strconv.ParseUint(fields[19], 10, 64)
}

// randomID names one hold, one folder or one attempt.
func randomID() string {
	var b [8]byte
	_, _ = rand.Read(b[:]) // never fails
	return hex.EncodeToString(b[:])
}

// checkHost refuses names that cannot be part of a file's name or that many
// machines have.
func checkHost(host string) error {
	const letters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-"
	switch {
	case host == "" || host[0] == '.' || len(host) > 64 || strings.Trim(host, letters) != "":
	case host == "localhost" || strings.HasPrefix(host, "localhost."):
	default:
		return nil
	}
	return &fault.Error{
		Op: "use the cluster's store as", Arg: strconv.Quote(host), Blame: fault.Site,
		Remedy: "give the node a host name of its own", Err: errors.New("not a name that one node alone has"),
	}
}
