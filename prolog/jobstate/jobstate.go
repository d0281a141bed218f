// Package jobstate is what a node knows about the jobs on it: one folder per
// job below the run folder (/run/berth), which a reboot empties.
//
//	jobs/<job>/                     root, 0700
//	    job.json                    its account and partition, for site policies
//	    leases/<image>              the job uses this image of the store
//	    prepare/<key>/              one per image that the job asked for
//	        request.json            who asked for what
//	        worker.json             the process that prepares it
//	        lock                    locked while a process prepares it
//	        progress                one line for the user, replaced as it goes
//	        state.json              the outcome, written once by rename
//	        log                     what the worker and its children printed
//	    record.json …               the container of a whole job, see Common (PBS)
//	sessions/<pid>.<start>/leases/  what a user's process outside of jobs uses
//
// Root alone reads and writes here, but for one file of a Common. `berth node prepare` and its worker write
// (package prolog); the helper of a step waits for the outcome (Wait), which
// is why this package stays small: it knows no registry and no mount.
package jobstate

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/berth-hpc/berth/fault"
)

// A Request is what a job wants prepared. Job, UID and GID come from the
// scheduler; Image is the user's text and Digest the one that submission
// found for it, "" for none: a wish, not a right.
type Request struct {
	Job    JobID  `json:"job"`
	UID    uint32 `json:"uid"`
	GID    uint32 `json:"gid"`
	Image  string `json:"image"`
	Digest string `json:"digest,omitempty"`
	// Account and Partition are what the site's policy may ask for, where the
	// scheduler's prolog told them; "" otherwise. PBS calls the latter a queue.
	Account   string `json:"-"`
	Partition string `json:"-"`
}

// Key names the folder of the request within its job. What was prepared for one
// user is no other's, also where a job's number comes again.
func (r Request) Key() string {
	sum := sha256.Sum256(fmt.Appendf(nil, "%d\x00%s\x00%s", r.UID, r.Image, r.Digest))
	return hex.EncodeToString(sum[:8])
}

// A State is the outcome of a preparation: an image that is leased for the
// job and mounted, or a failure.
type State struct {
	Ready   *Ready         `json:"ready,omitempty"`
	Failure *fault.Message `json:"failure,omitempty"`
	// LoginWanted says of a failure that a login from the job's own session
	// might change it; where nobody brings one, the failure stands.
	LoginWanted *LoginWanted `json:"login_wanted,omitempty"`
	Time        time.Time    `json:"time"` // when it was written
	// Hit says that the image was in the store before; Seconds how long the
	// preparation took.
	Hit     bool    `json:"hit"`
	Seconds float64 `json:"seconds"`
	// Phases are how long its parts took, in seconds: resolve, lock, get (with
	// pull and convert, as the account says), mount.
	Phases map[string]float64 `json:"phases,omitempty"`
	// Pulled is what came from a registry, in bytes as transferred.
	Pulled   int64     `json:"pulled_bytes,omitempty"`
	Verdicts *Verdicts `json:"verdicts,omitempty"`
}

// Verdicts are why a job may use an image.
type Verdicts struct {
	// Policy names the rule of the site's that allowed it; "" without a policy.
	Policy string `json:"policy,omitempty"`
	// Rights is public, or granted for a private image.
	Rights string `json:"rights,omitempty"`
	// SignedBy is the SHA-256 of the key whose signature the rule wanted.
	SignedBy string `json:"signed_by,omitempty"`
}

// Ready says where a prepared image is.
type Ready struct {
	Digest string `json:"digest"` // of the manifest, "sha256:…"
	Mount  string `json:"mount"`  // its name among the node's image mounts
	Dir    string `json:"dir"`    // its folder in the store
	// Pinned says that other nodes of the job, whose request has no digest
	// either, get the same.
	Pinned bool `json:"pinned,omitempty"`
}

// Squashfs is the path of the image's file, Config that of its image.json.
func (r Ready) Squashfs() string { return filepath.Join(r.Dir, "rootfs.sqfs") }

// Config is the path of the image's config as the store keeps it.
func (r Ready) Config() string { return filepath.Join(r.Dir, "image.json") }

// A Folder is the place of one preparation.
type Folder struct{ path string }

// PinName is the name under which a job's user namespaces are pinned
// (launcher.Mounts.Pin).
func PinName(job JobID) string { return string(job) }

// Names under which a job's user namespaces are pinned there.
const (
	PinOuter = "user1"
	PinInner = "user2"
)

// JobDir is the folder of a job below the run folder.
func JobDir(runDir string, job JobID) string {
	return filepath.Join(runDir, "jobs", string(job))
}

// Locate names the folder of a request; it need not exist.
func Locate(runDir string, r Request) Folder {
	return Folder{filepath.Join(JobDir(runDir, r.Job), "prepare", r.Key())}
}

// Existing is the folder at path, which Path gave.
func Existing(path string) Folder { return Folder{path} }

// Create makes the folder of a request and writes the request down.
func Create(runDir string, r Request) (Folder, error) {
	f := Locate(runDir, r)
	if err := os.MkdirAll(f.path, 0o700); err != nil {
		return f, err
	}
	return f, f.write("request.json", r)
}

// Path is the folder's path.
func (f Folder) Path() string { return f.path }

// LogPath is the file for what the worker and its children print.
func (f Folder) LogPath() string { return filepath.Join(f.path, "log") }

// Request reads the request back.
func (f Folder) Request() (Request, error) {
	var r Request
	return r, f.read("request.json", &r)
}

// SetState records the outcome.
func (f Folder) SetState(s State) error { return f.write("state.json", s) }

// State reads the outcome; fs.ErrNotExist while there is none.
func (f Folder) State() (State, error) {
	var s State
	err := f.read("state.json", &s)
	if err == nil && (s.Ready == nil) == (s.Failure == nil) {
		err = fmt.Errorf("%s: neither ready nor failed", f.path)
	}
	return s, err
}

// Forget removes an outcome, so that the preparation can start over.
func (f Folder) Forget() error {
	for _, name := range []string{"state.json", "progress"} {
		if err := os.Remove(filepath.Join(f.path, name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

// SetProgress replaces the line for the user.
func (f Folder) SetProgress(line string) error {
	return f.replace("progress", []byte(fault.Clean(line)))
}

// Progress reads it; "" while there is none.
func (f Folder) Progress() string {
	data, _ := os.ReadFile(filepath.Join(f.path, "progress")) // absent at first
	return string(data)
}

// A Worker is the process that prepares: the number alone may have been given
// to another process since, the start time (clock ticks since boot) tells.
type Worker struct {
	PID   int    `json:"pid"`
	Start uint64 `json:"start"`
}

// SetWorker records the worker.
func (f Folder) SetWorker(w Worker) error { return f.write("worker.json", w) }

// Worker reads it; fs.ErrNotExist before the worker has started.
func (f Folder) Worker() (Worker, error) {
	var w Worker
	return w, f.read("worker.json", &w)
}

func (f Folder) read(name string, into any) error {
	data, err := os.ReadFile(filepath.Join(f.path, name))
	if err != nil {
		return err
	}
	if err := json.Unmarshal(data, into); err != nil {
		return fmt.Errorf("read %s: %w", filepath.Join(f.path, name), err)
	}
	return nil
}

func (f Folder) write(name string, v any) error {
	data, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return f.replace(name, append(data, '\n'))
}

// replace writes a file so that readers see the old one or the new one. It is
// not synced: the folder does not outlive the boot.
func (f Folder) replace(name string, data []byte) error {
	return f.replaceFor(name, data, func(*os.File) error { return nil })
}

// replaceFor is replace with rights that the file gets before its name.
func (f Folder) replaceFor(name string, data []byte, rights func(*os.File) error) error {
	tmp, err := os.CreateTemp(f.path, "."+name+".")
	if err != nil {
		return err
	}
	_, err = tmp.Write(data)
	err = errors.Join(err, rights(tmp))
	if err = errors.Join(err, tmp.Close()); err == nil {
		err = os.Rename(tmp.Name(), filepath.Join(f.path, name))
	}
	if err != nil {
		_ = unix.Unlink(tmp.Name())
	}
	return err
}
