package e2e

import (
	"regexp"
	"testing"

	"github.com/berth-hpc/berth/testdata/cluster"
)

// madeUpGPUs are four of a node's devices that no driver is needed for, under
// numbers as a GPU's. Slurm wants files with numbers.
const madeUpGPUs = `
cdiVersion: 0.6.0
kind: example.com/gpu
devices:
- name: "0"
  containerEdits: {deviceNodes: [{path: /dev/example0, hostPath: /dev/zero}]}
- name: "1"
  containerEdits: {deviceNodes: [{path: /dev/example1, hostPath: /dev/full}]}
- name: "2"
  containerEdits: {deviceNodes: [{path: /dev/example2, hostPath: /dev/random}]}
- name: "3"
  containerEdits: {deviceNodes: [{path: /dev/example3, hostPath: /dev/urandom}]}
containerEdits:
  env: [EXAMPLE=spec]
`

// writableSpec is one that root did not write alone.
const writableSpec = `
cdiVersion: 0.6.0
kind: example.com/stranger
devices:
- name: "0"
  containerEdits: {env: [STRANGER=1]}
`

// besideAStep begins a step with two devices while another one holds the first.
const besideAStep = "srun --exact -n1 --gres=gpu:1 sleep 60 & until squeue -hs | grep -q sleep; do sleep 0.1; done; srun --exact -n1 --gres=gpu:2"

// TestDevices asks the scheduler for made-up GPUs: a container has those that
// the step was given, and no other.
func TestDevices(t *testing.T) {
	run := func(t *testing.T, s *site) {
		s.MustRun(t.Context(), "n1", "root", "sh", "-c", "chmod 666 /etc/cdi/stranger.yaml; ls /etc/cdi")
		show := ` --container-image=` + tiny + ` sh -c 'cd /dev; ls -d example* full random null 2>/dev/null; echo $EXAMPLE $CUDA_VISIBLE_DEVICES'`
		for _, tc := range []struct {
			name, script string
			code         int
			want, says   string
		}{
			{name: "one", script: "srun -w n1 --gres=gpu:1" + show, want: "^example0\nnull\nspec 0\n$"},
			{name: "a second step has the others", script: "salloc -w n1 -n4 --gres=gpu:4 sh -c '" + besideAStep + " --container-image=" + tiny + ` ls /dev; kill %1' 2>/dev/null | grep example`, want: "^example1\nexample2\n$"},
			{name: "numbered as seen", script: "salloc -w n1 -n4 --gres=gpu:4 sh -c '" + besideAStep + " --container-image=" + tiny + ` env; kill %1' 2>/dev/null | grep CUDA_VISIBLE`, want: "^CUDA_VISIBLE_DEVICES=0,1\n$"},
			{name: "batch", script: `printf '#!/bin/sh\nls /dev | grep example; ls /dev/random' >job.sh
				sbatch -w n1 -W -o /shared/gres.out --gres=gpu:2 --container-image=` + tiny + ` job.sh >/dev/null; cat /shared/gres.out`, want: "^example0\nexample1\nls: /dev/random: No such file or directory\n$"},
			{name: "none", script: "srun -w n1" + show, want: "^null\n\n$"},
			{name: "all tasks", script: "srun -w n1 -n2 --gres=gpu:4 --container-image=" + tiny + " sh -c 'ls /dev | grep -c example'", want: "^4\n4\n$"},
			{name: "asked for", script: "srun -w n1 --container-device=example.com/gpu=3 --container-image=" + tiny + " sh -c 'ls /dev | grep example; head -c1 /dev/example3 | wc -c'", want: "^example3\n1\n$"},
			{name: "by variable", script: "BERTH_CONTAINER_DEVICE=example.com/gpu=2,/dev/null srun -w n1 --container-image=" + tiny + " sh -c 'ls /dev | grep example'", want: "^example2\n$"},
			{name: "unknown", script: "srun -w n1 --container-device=example.com/gpu=9 --container-image=" + tiny + " true", code: 1, want: "^$", says: "this machine has example.com/gpu=0 example.com/gpu=1"},
			{name: "a spec that others may write", script: "srun -w n1 --container-device=example.com/stranger=0 --container-image=" + tiny + " true", code: 1, want: "^$", says: "no CDI spec on this machine has devices of the kind example.com/stranger"},
			{name: "no device", script: "srun -w n1 --container-device=gpu0 --container-image=" + tiny + " true", code: 255, want: "^$", says: "--container-device takes devices as in"},
		} {
			t.Run(tc.name, func(t *testing.T) {
				r := s.as(t, "alice", tc.script)
				check(t, r, tc.code, tc.want, tc.says)
			})
		}
		s.specsChange(t)
		s.idle(t)
	}
	bothWays(t, run, withConf("GresTypes=gpu", "NodeName=DEFAULT Gres=gpu:4"), withGres("Name=gpu File=/dev/loop[0-3]"), withFiles(
		writeFile(t, "example.yaml", madeUpGPUs)+":/etc/cdi/example.yaml",
		writeFile(t, "stranger.yaml", writableSpec)+":/etc/cdi/stranger.yaml",
	), withDevices(`scheduler = ["example.com/gpu=SLURM_STEP_GPUS,SLURM_JOB_GPUS,CUDA_VISIBLE_DEVICES"]`))
}

// specsChange looks that a node notices a new spec.
func (s *site) specsChange(t *testing.T) {
	s.MustRun(t.Context(), "n1", "root", "sh", "-c", "sed 's/EXAMPLE=spec/EXAMPLE=new/' /etc/cdi/example.yaml >/etc/cdi/new && mv /etc/cdi/new /etc/cdi/example.yaml")
	r := s.as(t, "alice", "srun -w n1 --gres=gpu:1 --container-image="+tiny+" sh -c 'echo $EXAMPLE'")
	check(t, r, 0, "^new\n$", "")
	if r := s.Run(t.Context(), "n1", "root", "sh", "-c", "ls /run/berth/devices | wc -l"); r.Stdout != "1\n" {
		t.Errorf("old catalogues stay: %v", r)
	}
}

func withGres(lines ...string) option {
	return func(s *setup) { s.Cluster.Gres = append(s.Cluster.Gres, lines...) }
}

func withFiles(files ...string) option {
	return func(s *setup) { s.Cluster.Files = append(s.Cluster.Files, files...) }
}

func withDevices(lines string) option {
	return func(s *setup) { s.Config += "[devices]\n" + lines + "\n" }
}

// check compares a result: want and says are regular expressions.
func check(t *testing.T, r cluster.Result, code int, want, says string) {
	t.Helper()
	if r.Code != code {
		t.Errorf("want exit code %d: %v", code, r)
	}
	if !regexp.MustCompile(want).MatchString(r.Stdout) {
		t.Errorf("want stdout %s: %v", want, r)
	}
	if says != "" && !regexp.MustCompile(says).MatchString(r.Stderr) {
		t.Errorf("want stderr %s: %v", says, r)
	}
}
