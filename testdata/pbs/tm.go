package main

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
)

// tmrsh [-n] HOST COMMAND… runs a command as a task of the job, as mpirun's
// remote shell. The arguments go as they are, without a shell. The host must be
// in the job's node file.
func tmrsh(args []string) (int, error) {
	for len(args) > 0 && strings.HasPrefix(args[0], "-") {
		args = args[1:]
	}
	if len(args) < 2 {
		return 2, errors.New("usage: pbs_tmrsh HOST COMMAND…")
	}
	hosts, err := os.ReadFile(os.Getenv("PBS_NODEFILE"))
	if err != nil {
		return 255, err
	}
	if !slices.Contains(strings.Fields(string(hosts)), args[0]) {
		return 255, fmt.Errorf("host %q is not a node in job", args[0])
	}
	return onHost(args[0], args[1:])
}

func onHost(host string, argv []string) (int, error) {
	t, err := dial("tcp", "127.0.0.1"+momPort)
	if err != nil {
		return 254, err
	}
	defer t.Close()
	end, err := t.ask(message{Op: "tm", JobID: os.Getenv("PBS_JOBID"), Host: host, Argv: argv},
		func(data []byte) { _, _ = os.Stdout.Write(data) })
	if err == nil && end.Error != "" {
		err = errors.New(end.Error)
	}
	return end.Code, err
}

// dsh COMMAND… runs it once on each node of the job, at the same time.
func dsh(args []string) (int, error) {
	if len(args) > 0 && args[0] == "--" {
		args = args[1:]
	}
	t, err := dial("tcp", "127.0.0.1"+momPort)
	if err != nil {
		return 254, err
	}
	defer t.Close()
	m, err := t.ask(message{Op: "hosts", JobID: os.Getenv("PBS_JOBID")}, nil)
	if err != nil {
		return 254, err
	}
	var group sync.WaitGroup
	codes, errs := make([]int, len(m.Hosts)), make([]error, len(m.Hosts))
	for i, host := range m.Hosts {
		group.Go(func() { codes[i], errs[i] = onHost(host, args) })
	}
	group.Wait()
	code := 0
	for _, c := range codes {
		code = max(code, c)
	}
	return code, errors.Join(errs...)
}
