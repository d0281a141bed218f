package prolog

import (
	"fmt"
	"os"
	"strconv"
	"strings"

	"github.com/berth-hpc/berth/prolog/jobstate"
	"golang.org/x/sys/unix"
)

// announce records this process as the folder's worker. The lock stays in
// descriptor 3; children don't get it, because theirs is another file.
func announce(folder jobstate.Folder) error {
	start, err := startTime(os.Getpid())
	if err != nil {
		return err
	}
	return folder.SetWorker(jobstate.Worker{PID: os.Getpid(), Start: start})
}

// startTime is when a process started, in clock ticks since boot: field 22
// of /proc/PID/stat (proc_pid_stat(5)), the 20th after the command's name,
// which may itself hold spaces and parentheses.
func startTime(pid int) (uint64, error) {
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

// openFolder opens a folder that root has just made.
func openFolder(path string) (*os.File, error) {
	return os.OpenFile(path, os.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW, 0)
}
