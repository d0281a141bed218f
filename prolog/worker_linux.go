package prolog

import (
	"os"

	"github.com/berth-hpc/berth/imagecache/store"
	"github.com/berth-hpc/berth/prolog/jobstate"
	"golang.org/x/sys/unix"
)

// announce records this process as the folder's worker. The lock stays in
// descriptor 3; children don't get it, because theirs is another file.
func announce(folder jobstate.Folder) error {
	start, err := store.ProcessStart(os.Getpid())
	if err != nil {
		return err
	}
	return folder.SetWorker(jobstate.Worker{PID: os.Getpid(), Start: start})
}

// openFolder opens a folder that root has just made.
func openFolder(path string) (*os.File, error) {
	return os.OpenFile(path, os.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW, 0)
}
