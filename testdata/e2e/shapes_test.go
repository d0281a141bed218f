package e2e

import (
	"fmt"
	"maps"
	"os"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/berth-hpc/berth/testdata/cluster"
	"github.com/berth-hpc/berth/testdata/deploy"
	"github.com/berth-hpc/berth/testdata/images"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
)

// links is a busybox whose mount points are links: a second image, which does
// not set TINY_IMAGE as tiny does.
const links = registry + "/links:1"

// scripts lie in /shared, which containers see, too.
var scripts = map[string]string{
	// which prints the image that a task runs in
	"which":  `if [ "$TINY_IMAGE" ]; then echo tiny; elif [ -e /.berth ]; then echo links; else echo host; fi`,
	"rw":     `sh /shared/which; pwd; touch /var/x 2>/dev/null && echo rw || echo ro; echo $WHO`,
	"tp":     `echo export FROM_USER=$FROM_SITE`,
	"nested": `export WHO=job; srun sh /shared/rw; srun --container-image=` + links + ` --container-readonly --container-workdir=/var sh /shared/rw`,
	"meet":   `touch /shared/met.$1.$(id -un); until [ -e /shared/met.$1.alice -a -e /shared/met.$1.bob ]; do sleep 0.1; done; id -un; sh /shared/which`,
	// cma has two processes read each other's memory
	"cma": `exec /usr/bin/perl -e '
		my ($me, $other) = @ARGV;
		my $word = "memory of $me";
		syscall(157, 0x59616d61, -1, 0, 0, 0);
		sub put { open(my $f, ">", "/shared/cma.new$me"); print $f $_[1]; close $f; rename "/shared/cma.new$me", "/shared/$_[0]" or die }
		sub get { my $f; for (1..300) { open($f, "<", "/shared/$_[0]") and last; select undef, undef, undef, 0.1 } return split / /, <$f> }
		put("cma.at.$me", "$$ " . unpack("Q", pack("P", $word)));
		my ($pid, $at) = get("cma.at.$other");
		my $got = "\0" x 11;
		my $local = pack("PQ", $got, 11);
		my $remote = pack("QQ", $at, 11);
		my $n = syscall(310, $pid + 0, $local, 1, $remote, 1, 0);
		print $n == 11 ? "$got\n" : "cannot read: $!\n";
		put("cma.done.$me", "1");
		get("cma.done.$other");' "$@"`,
}

// A shape is a way to start tasks: a script of a user's, what it ends with and
// prints.
type shape struct {
	name, script string
	code         int
	want         string // regular expression over all of stdout
	says         string // and one that stderr must match
}

func (sh shape) run(t *testing.T, s *site) {
	t.Helper()
	check(t, s.as(t, "alice", sh.script), sh.code, sh.want, sh.says)
}

// shapes end by themselves within seconds.
func shapes() []shape {
	in := "srun --container-image=" + tiny + " "
	perl := " --container-mounts=/usr:/usr,/usr/lib:/lib,/usr/lib64:/lib64 "
	return []shape{
		{
			name: "the step's options win", script: "salloc --container-image=" + tiny + " --container-writable --container-env=WHO sh /shared/nested 2>/dev/null",
			want: `^tiny\n/\nrw\njob\nlinks\n/var\nro\njob\n$`,
		},
		{
			name: "overlap", script: `id=$(sbatch --parsable -o /dev/null --container-image=` + tiny + ` --wrap "touch /shared/over; sleep 100")
			until [ -e /shared/over ]; do sleep 0.1; done
			srun --jobid=$id --overlap --container-image=` + links + ` sh /shared/which; srun --jobid=$id --overlap sh /shared/which; rm /shared/over; scancel $id`,
			want: `^links\nhost\n$`,
		},
		{name: "het, one image", script: in + "-w n1 -n1 sh /shared/which : -w n2 -n1 sh /shared/which | sort", want: `^tiny\ntiny\n$`},
		{
			name: "het, a container on one", script: "salloc -w n1 : -w n2 sh -c 'srun --het-group=0 --container-image=" + tiny + " sh /shared/which; srun --het-group=1 sh /shared/which' 2>/dev/null",
			want: `^tiny\nhost\n$`,
		},
		{
			name: "het, an image each", script: "salloc -w n1 : -w n2 sh -c 'srun --het-group=0 --container-image=" + tiny + " sh /shared/which; srun --het-group=1 --container-image=" + links + " sh /shared/which' 2>/dev/null",
			want: `^tiny\nlinks\n$`,
		},
		{
			name: "het, an image each, in one step", script: in + "-w n1 sh /shared/which : --container-image=" + links + " -w n2 sh /shared/which",
			code: 255, want: `^$`, says: `one image.*srun --het-group`,
		},
		{
			name: "two images, one node, shared memory", script: "salloc -N1 -n2 sh -c 'srun --overlap -n1 --container-image=" + links + perl + "sh /shared/cma a b & " + in + perl + "--overlap -n1 sh /shared/cma b a; wait' 2>/dev/null | sort; rm /shared/cma.*",
			want: `^memory of a\nmemory of b\n$`,
		},
		{
			name: "a file of programs", script: `printf '0 sh /shared/which\n1-2 echo %%t of %%o\n' >prog; ` + in + "-n3 --multi-prog prog | sort",
			want: `^1 of 0\n2 of 1\ntiny\n$`,
		},
		{
			name: "bcast", script: `printf '#!/bin/sh\necho $0; sh /shared/which\n' >prog.sh; chmod 755 prog.sh; ` + in + "-N2 --no-container-mount-home --chdir=/tmp --bcast=/data/bcast/prog ~/prog.sh | sort -u",
			want: `^/data/bcast/prog\ntiny\n$`,
		},
		{name: "task prologs", script: in + "--task-prolog=/shared/tp sh -c 'echo $FROM_SITE $FROM_USER'", want: `^yes yes\n$`},
		{name: "more tasks than CPUs", script: in + "-w n1 -N1 -n70 --overcommit sh /shared/which | sort | uniq -c", want: `^ +70 tiny\n$`},
		{name: "96 tasks on 3 nodes", script: in + "-N3 -n96 sh -c 'echo $SLURMD_NODENAME' | sort | uniq -c", want: `^ +32 n1\n +32 n2\n +32 n3\n$`},
		{name: "the worst exit code", script: in + "-N3 -n6 sh -c 'exit $SLURM_PROCID'", code: 5, want: `^$`},
	}
}

// portable are scripts written for Pyxis and enroot, in files.
var portable = map[string]string{
	"/home/alice/train.sh": `#!/bin/bash
#SBATCH --job-name=train
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=2
#SBATCH --output=/shared/train.out
set -eu
IMAGE="10.97.0.1:5000#tiny:1"
MOUNTS="$HOME/set:/data:ro+rprivate,/dev/shm:/fast"
export NCCL_DEBUG=WARN WHO=me
srun --container-image="$IMAGE" --container-mounts="$MOUNTS" --no-container-mount-home \
	--no-container-remap-root --no-container-entrypoint --container-workdir=/data --container-env=NCCL_DEBUG,WHO \
	sh -c 'touch /data/x 2>/dev/null || test -e ~/set || rm /fast/x 2>/dev/null || echo $SLURM_PROCID $(pwd) $(cat part) $NCCL_DEBUG $WHO' | sort
srun -N1 -n1 --container-image="$IMAGE" --container-remap-root --container-writable sh -c 'id -u; touch /etc/new && echo rw'
srun -N1 -n1 sh /shared/which
`,
	"/home/alice/inside.sh": `#!/bin/sh
#SBATCH --container-image 10.97.0.1:5000\#tiny:1
#SBATCH --container-mounts=/home/alice/set:/data
#SBATCH --container-workdir=/data
#SBATCH --no-container-entrypoint
#SBATCH --output=/shared/inside.out
sh /shared/which; pwd; cat part
`,
}

// scriptsOfOthers are scripts that know nothing of Berth. What srun says in a
// batch script's output, of nodes that are not free at once, is left out.
func scriptsOfOthers() []shape {
	torch := trickle + "/torch:1 "
	return []shape{
		{
			name: "written for Pyxis", script: "mkdir -p set; echo part >set/part; PYXIS_CONTAINER_READONLY=1 PYXIS_CONTAINER_WORKDIR=/tmp sbatch -W train.sh >/dev/null; c=$?; grep -v ^srun: /shared/train.out; exit $c",
			want: `^0 /data part WARN me\n1 /data part WARN me\n2 /data part WARN me\n3 /data part WARN me\n0\nrw\nhost\n$`,
		},
		{
			name: "written for Pyxis, by variable", script: "PYXIS_CONTAINER_IMAGE=" + registry + "#tiny:1 PYXIS_CONTAINER_MOUNTS=/etc/slurm:/conf PYXIS_CONTAINER_WRITABLE=yes PYXIS_CONTAINER_ENTRYPOINT=0 srun sh -c 'sh /shared/which; ls /conf/slurm.conf; touch /etc/x && echo rw'",
			want: `^tiny\n/conf/slurm.conf\nrw\n$`,
		},
		{name: "the script inside", script: "sbatch -W inside.sh >/dev/null; c=$?; cat /shared/inside.out; exit $c", want: `^tiny\n/data\npart\n$`},
		{
			name: "submitted without the plugin", script: "SLURM_CONF=/shared/noplug/slurm.conf BERTH_CONTAINER_IMAGE=" + tiny + ` sbatch -W -o /shared/noplug.out --wrap "unset SLURM_CONF
			sh /shared/which; srun sh /shared/which; srun --container-image=` + links + ` sh /shared/which" >/dev/null; grep -v ^srun: /shared/noplug.out`,
			want: `^host\ntiny\nlinks\n$`,
		},
		{
			name: "PyTorch", script: "srun -w n1,n2 --ntasks-per-node=2 --container-image=" + torch + "sh -c 'echo $RANK $LOCAL_RANK $WORLD_SIZE $MASTER_ADDR' | sort",
			want: `^0 0 4 n1\n1 1 4 n1\n2 0 4 n1\n3 1 4 n1\n$`,
		},
		{name: "PyTorch's port", script: "srun -N2 --ntasks-per-node=2 --container-image=" + torch + "sh -c 'echo $MASTER_PORT' | uniq -c", want: `^ +4 2\d{4}\n$`},
		{
			name: "PyTorch, the job's own", script: "RANK=7 WORLD_SIZE=9 MASTER_ADDR=mine MASTER_PORT=1 srun --container-env=WORLD_SIZE --container-image=" + torch + "sh -c 'echo $RANK $WORLD_SIZE $MASTER_ADDR $MASTER_PORT'",
			want: `^0 9 mine 1\n$`,
		},
		{name: "PyTorch, a batch script", script: "sbatch -W -o /shared/torch.out --container-image=" + torch + "--wrap 'echo ${RANK-none}' >/dev/null; cat /shared/torch.out", want: `^none\n$`},
		{name: "no PyTorch", script: "PYTORCH_VERSION=2 srun --container-image=" + tiny + " sh -c 'echo ${RANK-none}'", want: `^none\n$`},
	}
}

// addTorch has the registry give an image that says that it has PyTorch.
func (s *site) addTorch(t *testing.T) {
	t.Helper()
	img, err := images.ReadLayout(images.Layout(t, "tiny"), images.Tag)
	if err != nil {
		t.Fatal(err)
	}
	config, err := img.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	torch := config.Config.DeepCopy()
	torch.Env = append(torch.Env, "PYTORCH_VERSION=2.9.0a0")
	if img, err = mutate.Config(img, *torch); err != nil {
		t.Fatal(err)
	}
	if _, err := images.Push(t.Context(), s.startTrickling(t).reg.Host, "torch:1", img); err != nil {
		t.Fatal(err)
	}
}

// lasting are jobs to which something is done while they run, side by side.
var lasting = map[string]func(*testing.T, *site){
	"requeue": func(t *testing.T, s *site) {
		id := s.submit(t, "-o /dev/null --container-image="+tiny+` --wrap 'echo $SLURM_RESTART_COUNT $(sh /shared/which) ${SLURM_BERTH_DIGEST%%=*} >>/shared/again; [ "$SLURM_RESTART_COUNT" ] || sleep 100'`)
		s.has(t, "/shared/again")
		s.requeue(t, id)
		if state, code := s.ended(t, id, time.Minute); state != "COMPLETED" {
			t.Errorf("state %s, exit code %s", state, code)
		}
		out := s.With(t).MustRun(t.Context(), "ctl", "root", "cat", "/shared/again")
		digest := strings.TrimSpace(s.as(t, "alice", "berth resolve "+tiny).Stdout)
		if want := "tiny " + digest + "\n1 tiny " + digest + "\n"; out != want {
			t.Errorf("it ran\n%s, want\n%s", out, want)
		}
	},
	"suspend": func(t *testing.T, s *site) {
		id := s.submit(t, "-w n1 -o /dev/null --container-image="+tiny+" --wrap 'touch /shared/up; until [ -e /shared/resumed ]; do sleep 1.7; done'")
		s.has(t, "/shared/up")
		s.With(t).MustRun(t.Context(), "ctl", "root", "scontrol", "suspend", id)
		until(t, 20*time.Second, "the program stops", func() bool {
			return s.With(t).Run(t.Context(), "n1", "root", "pgrep", "-r", "T", "-f", "sleep 1[.]7").Code == 0
		})
		s.With(t).MustRun(t.Context(), "ctl", "root", "sh", "-c", "touch /shared/resumed; scontrol resume "+id)
		if state, code := s.ended(t, id, time.Minute); state != "COMPLETED" || code != "0:0" {
			t.Errorf("state %s, exit code %s", state, code)
		}
	},
	"a signal to the script": func(t *testing.T, s *site) {
		id := s.submit(t, "-o /dev/null --container-image="+tiny+` --wrap 'trap "exit 4" USR1; touch /shared/traps; while :; do sleep 0.1; done'`)
		s.has(t, "/shared/traps")
		s.With(t).MustRun(t.Context(), "ctl", "alice", "scancel", "--batch", "--signal=USR1", id)
		if state, code := s.ended(t, id, 30*time.Second); state != "FAILED" || code != "4:0" {
			t.Errorf("state %s, exit code %s", state, code)
		}
	},
	"scancel": func(t *testing.T, s *site) {
		id := s.submit(t, "-N2 -o /dev/null --wrap 'srun --container-image="+tiny+` sh -c "trap : TERM; touch /shared/runs; while :; do sleep 0.1; done"'`)
		s.has(t, "/shared/runs")
		s.With(t).MustRun(t.Context(), "ctl", "alice", "scancel", id)
		if state, _ := s.ended(t, id, 30*time.Second); state != "CANCELLED" {
			t.Errorf("state %s", state)
		}
	},
	"scancel before it starts": func(t *testing.T, s *site) {
		id := s.submit(t, "--begin=now+1hour -o /dev/null --container-image="+tiny+" --wrap true")
		s.With(t).MustRun(t.Context(), "ctl", "alice", "scancel", id)
		if state, _ := s.ended(t, id, 30*time.Second); state != "CANCELLED" {
			t.Errorf("state %s", state)
		}
	},
	"two users, one image, one name": func(t *testing.T, s *site) {
		var wg sync.WaitGroup
		for _, user := range []string{"alice", "bob"} {
			wg.Go(func() {
				r := s.as(t, user, "timeout 100 srun -w n2 --container-name=same --container-image="+tiny+" sh -c 'id -un >/etc/mine; sh /shared/meet srun; cat /etc/mine'")
				if r.Code != 0 || r.Stdout != user+"\ntiny\n"+user+"\n" {
					t.Errorf("%s: %v", user, r)
				}
			})
		}
		wg.Wait()
	},
}

// requeue has a running job start again, once the nodes have forgotten the
// credentials of its first start. Slurm itself waits for as long as those are
// valid from the requeue on, but a node keeps them from the end of its epilog
// on: where that took more than a second, the node starts the batch script
// without waiting for the prolog, and the script finds no /tmp of its own.
func (s *site) requeue(t *testing.T, id string) {
	t.Helper()
	s.With(t).MustRun(t.Context(), "ctl", "root", "scontrol", "requeuehold", id)
	until(t, 30*time.Second, "the first start is over", func() bool {
		state := s.job(t, id, "JobState")
		return state != "RUNNING" && state != "COMPLETING"
	})
	s.With(t).MustRun(t.Context(), "ctl", "root", "sh", "-c",
		fmt.Sprintf("scontrol update jobid=%[1]s starttime=now+%[2]d && scontrol release %[1]s", id, requeueExpire+5))
}

// requeueExpire is how long credentials are valid, in seconds.
const requeueExpire = 15

// has waits until there is such a file in /shared.
func (s *site) has(t *testing.T, path string) {
	t.Helper()
	until(t, 40*time.Second, path, func() bool { return s.With(t).Run(t.Context(), "ctl", "root", "test", "-e", path).Code == 0 })
}

// addScripts puts scripts where users and containers find them.
func (s *site) addScripts(t *testing.T) {
	t.Helper()
	files := maps.Clone(portable)
	for name, text := range scripts {
		files["/shared/"+name] = "#!/bin/sh\n" + text + "\n"
	}
	for path, text := range files {
		r := s.Do(t.Context(), cluster.Command{
			Machine: "ctl", Stdin: strings.NewReader(text), Args: []string{"sh", "-c", "cat >" + path + " && chmod 755 " + path},
		})
		if r.Code != 0 {
			t.Fatal(r)
		}
	}
}

// TestShapes is every way to start tasks that TestJobs has not, with what
// sites set: a private /tmp, a prolog before the first step, a task prolog.
func TestShapes(t *testing.T) {
	prolog := writeFile(t, "taskprolog", "#!/bin/sh\necho export FROM_SITE=yes\n")
	bothWays(t, func(t *testing.T, s *site) {
		s.addScripts(t)
		for _, node := range []string{"n1", "n2", "n3"} {
			s.MustRun(t.Context(), node, "root", "sh", "-c", "chmod 755 /etc/slurm-taskprolog; install -d -m 1777 /data/bcast")
		}
		s.MustRun(t.Context(), "ctl", "root", "sh", "-c", "mkdir /shared/noplug && cd /shared/noplug && cp /etc/slurm/*.conf . && sed -i s,/etc/slurm/plugstack.conf,/shared/noplug/none, slurm.conf && touch none")
		s.addTorch(t)
		t.Run("lasting", func(t *testing.T) {
			for name, test := range lasting {
				t.Run(name, func(t *testing.T) { t.Parallel(); test(t, s) })
			}
		})
		for _, sh := range append(shapes(), scriptsOfOthers()...) {
			t.Run(sh.name, func(t *testing.T) { sh.run(t, s) })
		}
		s.idle(t)
	}, withImages("links"), withMore(fmt.Sprintf("[registry.%q]\ninsecure = true\n", trickle)), withJobContainer, withFiles(prolog+":/etc/slurm-taskprolog"), func(set *setup) { set.Cluster.CPUs = 32 },
		withConf("PrologFlags=Alloc", "TaskProlog=/etc/slurm-taskprolog", "KillWait=5", fmt.Sprintf("AuthInfo=cred_expire=%d", requeueExpire)))
}

// TestPlugins is Slurm's other ways to follow a job's processes and to place
// them, as far as they work on machines that are none of their own.
func TestPlugins(t *testing.T) {
	s := newSite(t, withConf("ProctrackType=proctrack/pgid", "TaskPlugin=task/affinity", "KillWait=5"), withConfig("[container]\nidmap = false\n"))
	s.addScripts(t)
	in := "srun --container-image=" + tiny + " "
	for _, sh := range []shape{
		{name: "step", script: in + "-N3 -n6 sh /shared/which | uniq -c", want: `^ +6 tiny\n$`},
		{name: "exit code", script: in + "-N2 sh -c 'exit 9'", code: 9, want: `^$`},
		{
			name: "mask", script: "a=$(srun -w n1 --cpu-bind=map_cpu:0 grep Cpus_allowed_list /proc/self/status); b=$(" + in + "-w n1 --cpu-bind=map_cpu:0 grep Cpus_allowed_list /proc/self/status); echo $a; test \"$a\" = \"$b\" && echo same",
			want: `^Cpus_allowed_list: 0\nsame\n$`,
		},
		{
			name: "time limit", script: in + `-t1 sh -c 'trap "echo term; exit 5" TERM; while :; do sleep 0.1; done'`, code: 5,
			want: `^term\n$`, says: `TIME LIMIT`,
		},
	} {
		t.Run(sh.name, func(t *testing.T) { sh.run(t, s) })
	}
	t.Run("help", s.explains)
	s.idle(t)
}

// explains looks for each of the plugin's options in the help of Slurm's commands.
func (s *site) explains(t *testing.T) {
	source, err := os.ReadFile(deploy.Root() + "/spank/options.c")
	if err != nil {
		t.Fatal(err)
	}
	options := regexp.MustCompile(`(?m)^ {4}\{"([a-z-]+)", `).FindAllSubmatch(source, -1)
	if len(options) < 19 {
		t.Fatalf("%d options found in the plugin's source", len(options))
	}
	for _, command := range []string{"srun", "sbatch", "salloc"} {
		help := s.as(t, "alice", command+" --help").Stdout
		for _, option := range options {
			if !regexp.MustCompile(`(?m)^ +--` + string(option[1]) + `[ =\n]`).MatchString(help) {
				t.Errorf("%s --help does not explain --%s", command, option[1])
			}
		}
	}
}
