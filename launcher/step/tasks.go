package step

import (
	"context"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/berth-hpc/berth/fault"
	"github.com/berth-hpc/berth/launcher"
	"github.com/berth-hpc/berth/launcher/wire"
	"golang.org/x/sys/unix"
)

// A container is one whose namespaces every task gets.
type container struct {
	*launcher.Container
	users *launcher.UserNamespaces
	notes []string // what its tasks should know
	// joined says that it ran already, remap that its tasks appear as root.
	joined, remap bool
	// saved is nil unless the container is to be saved.
	saved *saved
}

// A view is what local task 0 contributes: the mount namespace in which it
// runs, opened by root, and the job's paths, sent by the user.
type view struct {
	mounts    *os.File
	job       launcher.Job
	command   string   // the program that the tasks run
	variables []string // of the task, as NAME=VALUE: those that tell of devices
}

// An answer is what every task gets. One task, which saves the container, gets
// more.
type answer struct {
	message wire.Message
	files   []*os.File
	saved   *saved
}

// to is the answer in full, for the task that saves or another one.
func (a *answer) to(saves bool) (data []byte, files []*os.File, err error) {
	message, files := a.message, a.files
	if saves && a.saved != nil {
		message, files = a.saved.add(message[:len(message):len(message)], files[:len(files):len(files)])
	}
	data, err = message.Encode()
	return data, files, err
}

// tasks are the local tasks of the step that have asked so far.
type tasks struct {
	want int
	view chan *view    // task 0's, once
	read chan struct{} // closed when task 0's view was read, or cannot be
	gone chan struct{} // closed when nobody can ask any more, or all were told

	mu     sync.Mutex
	first  *os.File // task 0's reply socket while it waits
	queue  []*os.File
	told   int
	answer *answer
	once   sync.Once
}

func newTasks(want int) *tasks {
	return &tasks{want: want, view: make(chan *view, 1), read: make(chan struct{}), gone: make(chan struct{})}
}

// add takes a task: files are its reply socket and, for task 0, its mount
// namespace.
func (t *tasks) add(id int, files []*os.File) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(files) == 2 && (id != 0 || t.first != nil) {
		files[1].Close()
		files = files[:1]
	}
	if id == 0 && len(files) == 2 {
		t.first = files[0]
		go t.readView(files[0], files[1])
	}
	t.queue = append(t.queue, files[0])
	t.flush()
}

// readView waits for task 0's paths. A task that died before it sent them
// leaves the view out; slurmstepd then ends the step.
func (t *tasks) readView(reply, mounts *os.File) {
	defer close(t.read)
	p, err := launcher.ReceivePacket(reply, wire.MaxMessage)
	if err != nil {
		mounts.Close()
		return
	}
	closeFiles(p.Files)
	m, err := wire.Decode(p.Data)
	if err != nil {
		mounts.Close()
		return
	}
	t.view <- &view{mounts: mounts, job: launcher.Job{
		Dir: m.Get("cwd"), TmpDir: m.Get("tmpdir"), Spool: m.Get("spool"),
		PMIx: m.Get("pmix"), PrologFile: m.All("prolog_file"), Visible: m.All("bcast"),
	}, variables: m.All("variable"), command: m.Get("command")}
}

func (t *tasks) firstView(ctx context.Context) (*view, error) {
	select {
	case v := <-t.view:
		return v, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// report sends task 0 the latest line every progressEvery while it waits.
func (t *tasks) report(ctx context.Context, lines <-chan string) {
	tick := time.NewTicker(progressEvery)
	defer tick.Stop()
	line := ""
	for {
		select {
		case line = <-lines:
		case <-tick.C:
			if line != "" {
				t.tell(line)
			}
		case <-t.gone:
			return
		case <-ctx.Done():
			return
		}
	}
}

func (t *tasks) tell(line string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.first == nil || t.answer != nil {
		return
	}
	data, err := wire.Message{{Key: "progress", Value: fault.Clean(line)}}.Encode()
	if err == nil {
		_ = launcher.SendPacket(t.first, data) // it may be gone: not our loss
	}
}

// settle gives every task, also later ones, its answer.
func (t *tasks) settle(c *container, k kind, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.answer = newAnswer(c, k, err)
	t.flush()
}

// A kind is what tasks are to know of their container.
type kind struct {
	remap bool // they appear as root, so they stay in N1
	slurm bool // they start a helper for Slurm's commands before they enter
	// workdir is where they start instead of where the container's tasks do.
	workdir string
}

func (k kind) records() wire.Message {
	records := wire.Message{{Key: "ok", Value: "1"}, {Key: "remap", Value: "0"}}
	if k.remap {
		records[1].Value = "1"
	}
	if k.slurm {
		records = append(records, wire.Record{Key: "slurm", Value: "1"})
	}
	if k.workdir != "" {
		records = append(records, wire.Record{Key: "cwd", Value: k.workdir})
	}
	return records
}

func newAnswer(c *container, k kind, err error) *answer {
	if err != nil {
		m := fault.NewMessage(err)
		return &answer{message: wire.Message{
			{Key: "error", Value: m.Text}, {Key: "remedy", Value: m.Remedy}, {Key: "blame", Value: m.Blame},
		}}
	}
	files := []*os.File{c.users.Outer, c.Mount, c.users.Inner, c.Result}
	if k.remap {
		files = []*os.File{c.users.Outer, c.Mount, c.Result}
	}
	m := k.records()
	for _, ns := range c.Own {
		m, files = m.Add("unshare", ns.Kind), append(files, ns.File)
	}
	for _, n := range slices.Concat(c.Notes, c.notes) {
		m = m.Add("note", n)
	}
	return &answer{message: m, files: files, saved: c.saved}
}

// flush answers whoever waits. The caller holds the lock.
func (t *tasks) flush() {
	if t.answer == nil {
		return
	}
	for _, reply := range t.queue {
		if data, files, err := t.answer.to(reply == t.first); err == nil {
			_ = launcher.SendPacket(reply, data, files...)
		}
		if reply != t.first {
			reply.Close()
		}
		t.told++
	}
	t.queue = nil
	if t.told >= t.want {
		t.abandon()
	}
}

// watch runs once the control socket is closed, so that no further task can
// come. It returns when nobody is left who waits for an answer.
func (t *tasks) watch(ctx context.Context) {
	t.mu.Lock()
	t.want = t.told + len(t.queue)
	t.flush()
	t.mu.Unlock()
	for ctx.Err() == nil && t.dropDead() > 0 {
	}
	t.abandon()
}

// dropDead waits up to a second for a task to end, forgets those that ended,
// and returns how many still wait.
func (t *tasks) dropDead() int {
	t.mu.Lock()
	waiting := slices.Clone(t.queue)
	fds := make([]unix.PollFd, len(waiting))
	for i, f := range waiting {
		fds[i].Fd = descriptor(f) // no events asked: a hang-up is always reported
	}
	t.mu.Unlock()
	_, _ = unix.Poll(fds, 1000)
	t.mu.Lock()
	defer t.mu.Unlock()
	for i, f := range waiting {
		if fds[i].Revents != 0 {
			t.queue = slices.DeleteFunc(t.queue, func(q *os.File) bool { return q == f })
			t.want--
		}
	}
	return len(t.queue)
}

// descriptor is -1, which poll ignores, for a closed file. File.Fd would make
// the socket blocking.
func descriptor(f *os.File) int32 {
	fd := int32(-1)
	if conn, err := f.SyscallConn(); err == nil {
		_ = conn.Control(func(d uintptr) { fd = int32(d) })
	}
	return fd
}

// abandon ends the wait for further tasks.
func (t *tasks) abandon() { t.once.Do(func() { close(t.gone) }) }

// wait returns when every task was told or none can ask any more.
func (t *tasks) wait() { <-t.gone }
