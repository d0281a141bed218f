package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// top runs a job's first process on its first node: a login shell that reads
// the path of the script from its standard input, a shell on a terminal, or
// what was given to qsub.
func (m *mom) top(j *job, t *talk) (int, error) {
	l := &launch{Progname: j.Shell, Env: j.environment(1)}
	if len(j.Argv) > 0 {
		l.Progname, l.Argv = j.Argv[0], j.Argv
	}
	out := writer(func(data []byte) { _ = t.send(message{Op: "out", Data: data}) })
	if o, err := run("execjob_launch", j, l, out); err != nil || o.rejected {
		return 1, fmt.Errorf("the job is deleted: launch: %s %w", o.message, err)
	}
	if len(j.Argv) == 0 { // set_credential of PBS
		l.Argv = append([]string{"-" + filepath.Base(l.Progname)}, l.Argv[min(1, len(l.Argv)):]...)
	}
	cmd := &exec.Cmd{Path: l.Progname, Args: l.Argv}
	if j.Interactive {
		return m.onTerminal(j, cmd, l.Env, t)
	}
	if j.Script != "" {
		script := filepath.Join(home, "mom_priv/jobs", j.ID+".SC")
		if err := errors.Join(os.WriteFile(script, []byte(j.Script), 0o700), os.Chown(script, j.UID, j.GID)); err != nil {
			return 1, err
		}
		cmd.Stdin = strings.NewReader(script + "\n")
	}
	cmd.Stdout, cmd.Stderr = out, out
	return m.start(j, cmd, l.Env)
}

// A writer is output on its way to whoever waits.
type writer func([]byte)

func (w writer) Write(data []byte) (int, error) {
	w(data)
	return len(data), nil
}

// task runs one that a task asked for (TM).
func (m *mom) task(id string, argv []string, t *talk) (int, error) {
	m.mu.Lock()
	j := m.jobs[id]
	m.mu.Unlock()
	if j == nil || len(argv) == 0 {
		return 254, fmt.Errorf("no job %q here", id)
	}
	l := &launch{Progname: argv[0], Argv: argv, Env: j.environment(2)}
	out := writer(func(data []byte) { _ = t.send(message{Op: "out", Data: data}) })
	if o, err := run("execjob_launch", j, l, out); err != nil || o.rejected {
		return 254, fmt.Errorf("launch: %s %w", o.message, err)
	}
	path, err := exec.LookPath(l.Progname)
	if err != nil {
		return 127, err
	}
	cmd := &exec.Cmd{Path: path, Args: l.Argv, Stdout: out, Stderr: out}
	return m.start(j, cmd, l.Env)
}

// environment is what a task of a job has.
func (j *job) environment(task int) []string {
	env := []string{
		"PATH=/usr/bin:/bin", "HOME=" + j.Home, "USER=" + j.User, "LOGNAME=" + j.User, "SHELL=" + j.Shell,
		"PBS_ENVIRONMENT=PBS_BATCH", "PBS_JOBID=" + j.ID, "PBS_JOBNAME=job", "PBS_QUEUE=workq",
		"PBS_NODEFILE=" + filepath.Join(home, "aux", j.ID), "TMPDIR=" + tmpdir(j),
		"PBS_JOBCOOKIE=0123456789ABCDEF", "PBS_MOMPORT=15003", "PBS_TASKNUM=" + fmt.Sprint(task), "OMP_NUM_THREADS=1",
	}
	for name, value := range j.Variables {
		env = append(env, name+"="+value)
	}
	return env
}

func (m *mom) start(j *job, cmd *exec.Cmd, env []string) (int, error) {
	cmd.Env, cmd.Dir = env, j.Home
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	}
	c := &syscall.Credential{Uid: uint32(j.UID), Gid: uint32(j.GID)}
	for _, g := range j.Groups {
		c.Groups = append(c.Groups, uint32(g))
	}
	cmd.SysProcAttr.Credential = c
	if err := cmd.Start(); err != nil {
		return 254, fmt.Errorf("pbs_mom, exec of %s failed with error: %w", cmd.Path, err)
	}
	m.mu.Lock()
	m.sids[j.ID] = append(m.sids[j.ID], cmd.Process.Pid)
	m.mu.Unlock()
	err := cmd.Wait()
	status := cmd.ProcessState.Sys().(syscall.WaitStatus)
	switch {
	case status.Signaled():
		return 256 + int(status.Signal()), nil
	case status.Exited():
		return status.ExitStatus(), nil
	}
	return 254, err
}

// onTerminal runs an interactive job's shell.
func (m *mom) onTerminal(j *job, cmd *exec.Cmd, env []string, t *talk) (int, error) {
	master, slave, err := terminal(j.UID)
	if err != nil {
		return 1, err
	}
	defer master.Close()
	go func() {
		for {
			var typed message
			if t.in.Decode(&typed) != nil {
				return
			}
			_, _ = master.Write(typed.Data)
		}
	}()
	shown := make(chan struct{})
	go func() {
		defer close(shown)
		_, _ = io.Copy(writer(func(data []byte) { _ = t.send(message{Op: "out", Data: data}) }), master)
	}()
	cmd.Stdin, cmd.Stdout, cmd.Stderr = slave, slave, slave
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	code, err := m.start(j, cmd, append(env, "PBS_ENVIRONMENT=PBS_INTERACTIVE", "TERM=dumb"))
	slave.Close()
	<-shown
	return code, err
}

func terminal(uid int) (master, slave *os.File, err error) {
	if master, err = os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0); err != nil {
		return nil, nil, err
	}
	n, err := unix.IoctlGetInt(int(master.Fd()), unix.TIOCGPTN)
	if err == nil {
		err = unix.IoctlSetPointerInt(int(master.Fd()), unix.TIOCSPTLCK, 0)
	}
	if err != nil {
		return nil, nil, err
	}
	path := fmt.Sprintf("/dev/pts/%d", n)
	if err := os.Chown(path, uid, -1); err != nil {
		return nil, nil, err
	}
	slave, err = os.OpenFile(path, os.O_RDWR|unix.O_NOCTTY, 0)
	return master, slave, err
}
