package jobstate

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"time"
)

// A Container is one that was made for a step. Root knows it by its mount
// namespace, and so can say which processes are in it without entering it.
type Container struct {
	Job    JobID     `json:"job"`
	Step   string    `json:"step,omitempty"`
	Name   string    `json:"name,omitempty"`
	UID    uint32    `json:"uid"`
	Image  string    `json:"image"`
	Digest string    `json:"digest,omitempty"`
	Time   time.Time `json:"time"`
	Mount  uint64    `json:"mount"` // inode of the namespace
}

// AddContainer notes c in its job's folder, which exists as long as the job: it
// is not made here. A step that runs again takes the place of the one before.
func AddContainer(runDir string, c Container) error {
	dir := filepath.Join(JobDir(runDir, c.Job), "containers")
	if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	sum := sha256.Sum256([]byte(c.Step + "\x00" + c.Name))
	return Folder{dir}.write(hex.EncodeToString(sum[:8]), c)
}

// Containers lists those of all jobs on this node. Some may have ended.
func Containers(runDir string) ([]Container, error) {
	jobs, err := Jobs(runDir)
	if err != nil {
		return nil, err
	}
	var all []Container
	for _, job := range jobs {
		dir := filepath.Join(JobDir(runDir, job), "containers")
		entries, err := readDir(dir)
		if err != nil {
			return nil, err
		}
		for _, e := range entries {
			var c Container
			data, err := os.ReadFile(filepath.Join(dir, e.Name()))
			if err == nil && json.Unmarshal(data, &c) == nil {
				all = append(all, c)
			}
		}
	}
	return all, nil
}
