package jobstate

import (
	"bytes"
	"context"
	"fmt"
	"os/exec"
	"strconv"
	"strings"
	"time"

	"github.com/berth-hpc/berth/fault"
	"github.com/berth-hpc/berth/launcher/wire"
)

// FreshFor is how long a recorded failure answers those who ask again. A step
// that starts later tries again: the registry may be back.
const FreshFor = 10 * time.Second

// prepareLimit bounds `berth node prepare`, which records a request and starts
// a worker: one that hangs must not hold the step until its time limit.
const prepareLimit = 20 * time.Second

// Environment is the whole environment of root's and the account's processes:
// nothing of a job's gets there.
func Environment() []string {
	return []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "LANG=C"}
}

// Settled says that nobody needs to start the preparation: it runs, it is
// done, or it failed a moment ago.
func (f Folder) Settled() bool {
	if f.Busy() {
		return true
	}
	s, err := f.State()
	return err == nil && (s.Ready != nil || time.Since(s.Time) < FreshFor)
}

// Ensure starts the preparation unless somebody did, and returns its folder
// for Wait. berth is how `berth` is started, usually just its path. It is for
// the helper of a step, whose image may not be the one that the prolog knew of
// (srun --container-image within an allocation).
func Ensure(ctx context.Context, berth []string, runDir string, r Request) (Folder, error) {
	f := Locate(runDir, r)
	if f.Settled() {
		return f, nil
	}
	return f, prepare(ctx, berth, r, "")
}

// prepare runs `berth node prepare`; login is "" or as Again has it.
func prepare(ctx context.Context, berth []string, r Request, login string) error {
	message, err := r.message(login)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, prepareLimit)
	defer cancel()
	cmd := exec.CommandContext(ctx, berth[0], append(berth[1:len(berth):len(berth)], "node", "prepare")...)
	cmd.Env, cmd.Dir, cmd.Stdin = Environment(), "/", bytes.NewReader(message)
	// The worker outlives the command and must not hold its output open.
	cmd.WaitDelay = time.Second
	if out, err := cmd.CombinedOutput(); err != nil {
		return fault.Wrap("start the preparation of the image", "", fault.Site,
			"tell your administrator; on this node `berth node status` and /run/berth/jobs/<job>/prepare/*/log say more",
			fmt.Errorf("%w: %s", err, fault.Clean(strings.TrimSpace(string(out)))))
	}
	return nil
}

// message is what `berth node prepare` reads. It returns at once: the caller
// waits itself.
func (r Request) message(login string) ([]byte, error) {
	number := func(n uint32) string { return strconv.FormatUint(uint64(n), 10) }
	m := wire.Message{
		{Key: "job", Value: string(r.Job)},
		{Key: "uid", Value: number(r.UID)},
		{Key: "gid", Value: number(r.GID)},
		{Key: "image", Value: r.Image},
		{Key: "digest", Value: r.Digest},
		{Key: "wait", Value: "0"},
	}
	if login != "" {
		m = m.Add("login", login)
	}
	if r.Partition != "" {
		m = m.Add("account", r.Account).Add("partition", r.Partition)
	}
	return m.Encode()
}
