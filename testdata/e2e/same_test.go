package e2e

import "testing"

// whatATaskHas prints what a process inherits besides its files: the
// container must not change any of it. busybox is the same on both sides.
const whatATaskHas = `
umask; ulimit -a; cat /proc/self/cgroup /proc/$$/oom_score_adj /proc/$$/coredump_filter /proc/$$/timerslack_ns
cat /proc/$$/limits /proc/$$/personality; busybox nice; pwd | sed "s|.*|folder|"
busybox awk "{ print \"priority\", \$18, \$19, \"policy\", \$41, \"signal\", \$38 }" /proc/$$/stat
grep -E "^(SigPnd|SigBlk|SigIgn|Cpus_allowed|Mems_allowed|NoNewPrivs|Seccomp|CapEff|CapInh|CapAmb|Groups|Uid|Gid)" /proc/$$/status
for ns in cgroup ipc net pid uts; do readlink /proc/self/ns/$ns; done
for f in 0 1 2 3 4 5 6 7 8 9; do [ -e /proc/$$/fd/$f ] && echo "$f $(readlink /proc/$$/fd/$f | sed "s/[0-9][0-9]*/N/")"; done
set -- $(cat /proc/$$/stat); [ $6 != $1 ] && echo "session of slurmstepd"; echo "terminal $7"`

// TestSameAsBare compares tasks in a container with tasks on the node.
func TestSameAsBare(t *testing.T) {
	s := newSite(t)
	s.MustRun(t.Context(), "ctl", "root", "sh", "-c", "cat >/shared/has.sh <<'END'\n"+whatATaskHas+"\nEND")
	inside := " --container-image=" + tiny + " "
	for name, command := range map[string]string{
		"inherited":      "-w n1 busybox sh /shared/has.sh",
		"limits":         "--propagate=ALL busybox sh -c 'ulimit -n; ulimit -c'",
		"exit code":      "busybox sh -c 'exit 42'",
		"killed":         "busybox sh -c 'kill -9 $$'",
		"aborted":        "busybox sh -c 'ulimit -c 0; kill -6 $$'",
		"pipe's end":     "busybox sh -c 'head -c 100000 /dev/zero; yes 2>&1 | head -n1; echo $?' | wc -c",
		"ignored signal": "busybox sh -c 'trap \"\" TERM; sh -c \"grep SigIgn /proc/self/status\"'",
		"environment":    "-w n1 busybox env | grep -vE '^(SLURM_(JOBID|JOB_ID|STEP|STEPID|LAUNCH|SRUN|TASK_PID|JOB_END|JOB_START|GTIDS)|SLURM.*PORT|SLURM.*BERTH|PATH|TINY_IMAGE|LANG|PWD|SPANK|_SLURM)'",
		"own program":    "busybox sh -c 'readlink -f /proc/self/exe >/dev/null && echo readable'",
		"terminal":       "--pty busybox sh -c 'tty | sed s/[0-9].*//; stty -a | head -n1 | cut -c1-5; ps -o pgid,tty >/dev/null; echo done' </dev/null",
		"stdin":          "busybox sh -c 'cat; echo $?' <<<hello",
		"stderr":         "busybox sh -c 'echo out; echo err >&2'",
		"CPU mask":       "-c2 --cpu-bind=cores busybox sh -c 'grep Cpus_allowed: /proc/self/status'",
		"variables":      "busybox sh -c 'echo ${SLURM_JOB_ID:+job} $SLURM_PROCID $HOME $USER'",
		"many tasks":     "-n8 --overcommit busybox sh -c 'echo $SLURM_LOCALID' | sort",
		"multi-node":     "-N3 busybox sh -c 'echo $SLURMD_NODENAME' | sort",
		"not executable": "/etc/passwd",
	} {
		t.Run(name, func(t *testing.T) {
			bare := s.as(t, "alice", "srun "+command)
			in := s.as(t, "alice", "srun"+inside+command)
			if bare.Code != in.Code || bare.Stdout != in.Stdout {
				t.Errorf("bare: %v\nin a container: %v", bare, in)
			}
		})
	}
	s.idle(t)
}
