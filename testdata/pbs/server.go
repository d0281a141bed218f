package main

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/user"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

var lastJob atomic.Int64

// serve is pbs_server: it takes jobs from whoever the kernel says is there.
func serve([]string) (int, error) {
	_ = os.Remove(serverPath)
	old := unix.Umask(0)
	defer unix.Umask(old)
	if err := os.MkdirAll(home, 0o755); err != nil {
		return 1, err
	}
	return listen("unix", serverPath, func(t *talk) {
		var m message
		if err := t.in.Decode(&m); err != nil || m.Job == nil {
			return
		}
		code, err := submit(t, m.Job)
		end := message{Op: "end", Code: code}
		if err != nil {
			end.Error = err.Error()
		}
		_ = t.send(end)
	})
}

// submit runs the server's hooks and then the job, or every one of an array at
// the same time. The exit status is the largest.
func submit(t *talk, j *job) (int, error) {
	if err := j.setUser(t.Conn.(*net.UnixConn)); err != nil {
		return 1, err
	}
	o, err := run("queuejob", j, nil, io.Discard)
	if err != nil {
		return 1, err
	}
	if o.rejected {
		return 1, fmt.Errorf("qsub: %s", o.message)
	}
	number := lastJob.Add(1)
	if j.To == 0 {
		j.ID = fmt.Sprintf("%d.ctl", number)
		return runJob(t, j)
	}
	var group sync.WaitGroup
	codes, errs := make([]int, j.To+1), make([]error, j.To+1)
	for i := j.From; i <= j.To; i++ {
		part := *j
		part.ID, part.Variables = fmt.Sprintf("%d[%d].ctl", number, i), map[string]string{"PBS_ARRAY_INDEX": strconv.Itoa(i)}
		for name, value := range j.Variables {
			part.Variables[name] = value
		}
		group.Go(func() { codes[i], errs[i] = runJob(t, &part) })
	}
	group.Wait()
	code := 0
	for _, c := range codes {
		code = max(code, c)
	}
	return code, errors.Join(errs...)
}

func (j *job) setUser(c *net.UnixConn) error {
	raw, err := c.SyscallConn()
	if err != nil {
		return err
	}
	var cred *unix.Ucred
	err = raw.Control(func(fd uintptr) { cred, _ = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED) })
	if err != nil || cred == nil {
		return errors.New("nobody is there")
	}
	u, err := user.LookupId(strconv.Itoa(int(cred.Uid)))
	if err != nil {
		return err
	}
	j.User, j.UID, j.GID, j.Home = u.Username, int(cred.Uid), int(cred.Gid), u.HomeDir
	groups, err := u.GroupIds()
	for _, g := range groups {
		n, _ := strconv.Atoi(g)
		j.Groups = append(j.Groups, n)
	}
	chunks, chunk, _ := strings.Cut(j.Resources["select"], ":")
	count, aerr := strconv.Atoi(chunks)
	for i := range max(1, count) {
		j.Hosts = append(j.Hosts, fmt.Sprintf("n%d", i+1))
	}
	for part := range strings.SplitSeq(chunk, ":") {
		if host, ok := strings.CutPrefix(part, "host="); ok {
			j.Hosts = []string{host}
		}
	}
	if aerr != nil && j.Resources["select"] != "" {
		return aerr
	}
	return err
}

// maxBegins is how often PBS tries to begin a job before it holds it.
const maxBegins = 21

// runJob is the order of events over nodes: all have begun before anything
// runs; the end is the first node's, and then the others'.
func runJob(t *talk, j *job) (int, error) {
	var err error
	for range maxBegins {
		if err = everywhere(j, "execjob_begin"); err == nil {
			break
		}
		err = errors.Join(err, everywhere(j, "execjob_abort"))
	}
	if err != nil {
		return 1, fmt.Errorf("job %s is held, it failed to begin: %w", j.ID, err)
	}
	m, err := toNode(j.Hosts[0], message{Op: "job", Job: j}, t)
	for _, event := range []string{"execjob_epilogue", "execjob_end"} {
		for _, host := range j.Hosts {
			end, eerr := toNode(host, message{Op: "event", Event: event, Job: j}, nil)
			if eerr == nil && end.Error != "" {
				eerr = errors.New(end.Error)
			}
			if eerr != nil && event == "execjob_epilogue" {
				m.Code = -19
			}
			err = errors.Join(err, eerr)
		}
	}
	if err == nil && m.Error != "" {
		err = errors.New(m.Error)
	}
	return m.Code, err
}

// everywhere runs the hooks for an event on all nodes of a job at once.
func everywhere(j *job, event string) error {
	var group sync.WaitGroup
	errs := make([]error, len(j.Hosts))
	for i, host := range j.Hosts {
		group.Go(func() {
			began := time.Now()
			end, err := toNode(host, message{Op: "event", Event: event, Job: j}, nil)
			if err == nil && end.Error != "" {
				err = errors.New(host + ": " + end.Error)
			}
			if took := time.Since(began); took > 10*time.Second {
				err = errors.Join(err, fmt.Errorf("%s on %s held pbs_mom up for %s", event, host, took))
			}
			errs[i] = err
		})
	}
	group.Wait()
	return errors.Join(errs...)
}

// toNode asks a node. Its output, and what the other side of from says
// meanwhile (an interactive job's terminal), go through.
func toNode(host string, m message, from *talk) (message, error) {
	node, err := dial("tcp", host+momPort)
	if err != nil {
		return m, err
	}
	defer node.Close()
	if err := node.send(m); err != nil {
		return m, err
	}
	if from != nil && m.Job.Interactive {
		go func() {
			for {
				var typed message
				if from.in.Decode(&typed) != nil || node.send(typed) != nil {
					return
				}
			}
		}()
	}
	return node.answers(func(data []byte) {
		if from != nil {
			_ = from.send(message{Op: "out", Data: data})
		}
	})
}
