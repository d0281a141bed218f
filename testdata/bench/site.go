package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

const registry = "10.97.0.1:5000"

func image(name string) string { return "--container-image=" + registry + "/" + name + ":1" }

// on runs a command on a machine of the cluster and returns what it printed.
func (b *bench) on(ctx context.Context, machine, user string, stdin []byte, args ...string) ([]byte, error) {
	limit := strconv.Itoa(int(4*b.limit().Seconds()) + 120)
	line := append([]string{"run", "--dir", b.dir, machine, "-u", user, "--timeout", limit, "--"}, args...)
	return output(exec.CommandContext(ctx, b.cluster, line...), stdin)
}

// output runs a command and puts what it said into its error.
func output(cmd *exec.Cmd, stdin []byte) ([]byte, error) {
	var stdout, stderr bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = bytes.NewReader(stdin), &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return nil, fmt.Errorf("%s: %w: %s", strings.Join(cmd.Args, " "), err, strings.TrimSpace(stderr.String()))
	}
	return stdout.Bytes(), nil
}

// alternate runs variants in turns as alice on the submit host, each when the
// cluster is idle.
func (b *bench) alternate(ctx context.Context, rounds int, limit time.Duration, vs ...Variant) ([]Sample, error) {
	spec := Spec{Rounds: rounds, Variants: vs, Settle: []string{"squeue", "-h", "-a"}, Limit: limit}
	in, err := json.Marshal(spec)
	if err != nil {
		return nil, err
	}
	out, err := b.on(ctx, "ctl", "alice", in, "/opt/bench/bench", "rounds")
	if err != nil {
		return nil, err
	}
	var samples []Sample
	if err := json.Unmarshal(out, &samples); err != nil {
		return nil, fmt.Errorf("read samples: %w", err)
	}
	return samples, nil
}

// usePlugin makes Slurm load another build of the plugin from now on.
// slurmstepd and srun read plugstack.conf anew each time.
func (b *bench) usePlugin(path string) error {
	line := "required " + path + " bindir=/opt/berth/bin libexec=/opt/berth/libexec/berth\n"
	return os.WriteFile(filepath.Join(b.dir, "slurm", "plugstack.conf"), []byte(line), 0o644)
}

// srun is a command line of srun.
func srun(args ...string) []string { return append([]string{"srun"}, args...) }

// tasks are srun's arguments for n tasks on the first node.
func tasks(n int) []string { return []string{"-w", "n1", "-n", strconv.Itoa(n)} }
