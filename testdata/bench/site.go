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

// A site is a cluster of three nodes on this machine that runs one build of Berth.
type site struct {
	script string // that runs commands on the cluster
	dir    string // the cluster's folder
}

// startSite starts a cluster in a folder of that name. It ends with the script
// that started this program, or by stop.
func (b *bench) startSite(ctx context.Context, name, product string) (*site, error) {
	s := &site{script: filepath.Join(b.top, "testdata/cluster/cluster"), dir: filepath.Join(filepath.Dir(b.work), name)}
	_, err := output(exec.CommandContext(ctx, filepath.Join(b.top, "testdata/bench/site"), s.dir, product, b.work, b.owner), nil)
	return s, err
}

func (s *site) stop(ctx context.Context) error {
	_, err := output(exec.CommandContext(ctx, s.script, "down", "--dir", s.dir), nil)
	return err
}

// onCluster is a section that needs the cluster, which the first of them starts.
func (b *bench) onCluster(f func(context.Context) error) func(context.Context) error {
	return func(ctx context.Context) (err error) {
		if b.site == nil {
			if b.site, err = b.startSite(ctx, "cluster", filepath.Join(b.top, "build")); err != nil {
				b.site = nil
				return err
			}
		}
		return f(ctx)
	}
}

// on runs a command on a machine of the cluster, for so long at most, and
// returns what it printed.
func (s *site) on(ctx context.Context, limit time.Duration, machine, user string, stdin []byte, args ...string) ([]byte, error) {
	line := []string{"run", "--dir", s.dir, machine, "-u", user, "--timeout", strconv.Itoa(int(limit.Seconds())), "--"}
	return output(exec.CommandContext(ctx, s.script, append(line, args...)...), stdin)
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

// idle is what Spec.Settle runs where jobs are to be gone before each sample.
func idle() []string { return []string{"squeue", "-h", "-a"} }

// rounds runs variants in turns as alice on the submit host.
func (s *site) rounds(ctx context.Context, spec Spec) ([]Sample, error) {
	in, err := json.Marshal(spec)
	if err != nil {
		return nil, err
	}
	out, err := s.on(ctx, spec.Limit+3*oneRun, "ctl", "alice", in, "/opt/bench/bench", "rounds")
	if err != nil {
		return nil, err
	}
	var samples []Sample
	if err := json.Unmarshal(out, &samples); err != nil {
		return nil, fmt.Errorf("read samples: %w", err)
	}
	return samples, nil
}

// once is one run of a variant.
func (s *site) once(ctx context.Context, v Variant, settle []string) Sample {
	samples, err := s.rounds(ctx, Spec{Rounds: 1, Variants: []Variant{v}, Settle: settle, Limit: oneRun})
	if err != nil {
		return Sample{Code: -1, Out: err.Error()}
	}
	return samples[0]
}

// alternate is rounds on the cluster of the run, each when it is idle.
func (b *bench) alternate(ctx context.Context, rounds int, limit time.Duration, vs ...Variant) ([]Sample, error) {
	return b.site.rounds(ctx, Spec{Rounds: rounds, Warm: 1, Variants: vs, Settle: idle(), Limit: limit})
}

// usePlugin makes Slurm load another build of the plugin from now on.
// slurmstepd and srun read plugstack.conf anew each time.
func (s *site) usePlugin(path string) error {
	line := "required " + path + " bindir=/opt/berth/bin libexec=/opt/berth/libexec/berth\n"
	return os.WriteFile(filepath.Join(s.dir, "slurm", "plugstack.conf"), []byte(line), 0o644)
}

// requests counts what the cluster's registry has answered.
func (s *site) requests() (int, error) {
	log, err := os.ReadFile(filepath.Join(s.dir, "machines/ctl/root/var/log/registry.log"))
	return bytes.Count(log, []byte("\n")), err
}

// srun is a command line of srun.
func srun(args ...string) []string { return append([]string{"srun"}, args...) }

// tasks are srun's arguments for n tasks on the first node.
func tasks(n int) []string { return []string{"-w", "n1", "-n", strconv.Itoa(n)} }
