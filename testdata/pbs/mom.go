package main

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
)

// A mom is a node's pbs_mom.
type mom struct {
	mu   sync.Mutex
	jobs map[string]*job
	sids map[string][]int // of a job's tasks
}

// serveNode is pbs_mom.
func serveNode([]string) (int, error) {
	for path, mode := range map[string]os.FileMode{
		"mom_priv": 0o751, "mom_priv/jobs": 0o751, "aux": 0o755, "spool": 0o1777, "hooks": 0o700,
	} {
		if err := os.MkdirAll(filepath.Join(home, path), 0o755); err != nil {
			return 1, err
		}
		if err := os.Chmod(filepath.Join(home, path), mode); err != nil {
			return 1, err
		}
	}
	m := &mom{jobs: map[string]*job{}, sids: map[string][]int{}}
	if _, err := run("exechost_startup", nil, nil, io.Discard); err != nil {
		return 1, err
	}
	return listen("tcp", momPort, m.serve)
}

func (m *mom) serve(t *talk) {
	var ask message
	if err := t.in.Decode(&ask); err != nil {
		return
	}
	end := message{Op: "end"}
	var err error
	switch ask.Op {
	case "event":
		err = m.event(ask.Event, ask.Job)
	case "job":
		end.Code, err = m.top(ask.Job, t)
	case "task":
		end.Code, err = m.task(ask.JobID, ask.Argv, t)
	case "tm":
		end, err = m.forward(ask, t)
	case "hosts":
		m.mu.Lock()
		if j := m.jobs[ask.JobID]; j != nil {
			end.Hosts = j.Hosts
		}
		m.mu.Unlock()
	}
	if err != nil {
		end.Error = err.Error()
	}
	_ = t.send(end)
}

// event runs the hooks of a node. A job is in its folder from before the first
// until after the last.
func (m *mom) event(event string, j *job) error {
	control := filepath.Join(home, "mom_priv/jobs", j.ID+".JB")
	if event == "execjob_begin" {
		if err := m.begin(j, control); err != nil {
			return err
		}
	}
	if event == "execjob_epilogue" || event == "execjob_abort" {
		m.killTasks(j.ID)
	}
	o, err := run(event, j, nil, io.Discard)
	if err == nil && o.rejected {
		err = fmt.Errorf("%s: %s", event, o.message)
	}
	if event == "execjob_end" || event == "execjob_abort" {
		m.mu.Lock()
		delete(m.jobs, j.ID)
		m.mu.Unlock()
		err = firstOf(err, os.Remove(control), os.RemoveAll(tmpdir(j)), removeFiles(j))
	}
	return err
}

func firstOf(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

func removeFiles(j *job) error {
	return firstOf(remove(filepath.Join(home, "mom_priv/jobs", j.ID+".SC")), remove(filepath.Join(home, "aux", j.ID)))
}

func tmpdir(j *job) string { return "/var/tmp/pbs." + j.ID }

func (m *mom) begin(j *job, control string) error {
	m.mu.Lock()
	m.jobs[j.ID] = j
	m.mu.Unlock()
	if err := os.WriteFile(control, nil, 0o600); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(home, "aux", j.ID), []byte(strings.Join(j.Hosts, "\n")+"\n"), 0o644); err != nil {
		return err
	}
	if err := os.MkdirAll(tmpdir(j), 0o700); err != nil {
		return err
	}
	return os.Chown(tmpdir(j), j.UID, j.GID)
}

// killTasks kills the sessions of a job's tasks: what took a session of its
// own stays, as with PBS without cgroups.
func (m *mom) killTasks(id string) {
	m.mu.Lock()
	sids := m.sids[id]
	delete(m.sids, id)
	m.mu.Unlock()
	stats, _ := filepath.Glob("/proc/[0-9]*/stat")
	for _, path := range stats {
		data, _ := os.ReadFile(path)
		_, rest, _ := strings.Cut(string(data), ") ")
		var state string
		var parent, group, session int
		_, _ = fmt.Sscan(rest, &state, &parent, &group, &session)
		for _, sid := range sids {
			if session == sid {
				var pid int
				_, _ = fmt.Sscan(string(data), &pid)
				_ = syscall.Kill(pid, syscall.SIGKILL)
			}
		}
	}
}

// forward starts a task on another node of the job, for pbs_tmrsh.
func (m *mom) forward(ask message, t *talk) (message, error) {
	m.mu.Lock()
	j := m.jobs[ask.JobID]
	m.mu.Unlock()
	if j == nil {
		return message{Op: "end", Code: 254}, fmt.Errorf("no job %q here", ask.JobID)
	}
	node, err := dial("tcp", ask.Host+momPort)
	if err != nil {
		return message{Op: "end", Code: 254}, err
	}
	defer node.Close()
	return node.ask(message{Op: "task", JobID: ask.JobID, Argv: ask.Argv}, func(data []byte) {
		_ = t.send(message{Op: "out", Data: data})
	})
}
