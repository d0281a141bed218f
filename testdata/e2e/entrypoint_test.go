package e2e

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/berth-hpc/berth/testdata/images"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
)

// entryScript is an entrypoint as images have them, and, as ENTRY says, one that
// goes wrong.
const entryScript = `#!/bin/sh
echo "hello from the entrypoint"
echo $SLURM_PROCID >>${ENTRY_COUNT:-/dev/null}
export MADE=here:$GIVEN PATH=/made:$PATH LINES="one
two"
unset TINY_IMAGE
case ${ENTRY:-} in
fail) exit 3 ;;
hang) exec sleep 1000 ;;
ignore) exit 0 ;;
stay) "$@"; exec sleep 1000 ;;
much) yes | head -c 3000000 ;;
big) ulimit -s unlimited; i=0; while [ $i -lt 30 ]; do export BIG$i=$(head -c 100000 /dev/zero | tr '\0' x); i=$((i+1)); done ;;
left) (while :; do sleep 0.1; echo tick; done) & echo $! >/shared/left.pid ;;
closed) exec 3>&- 4>&-; sh -c '"$@"' sh "$@"; exit ;;
esac
exec "$@"
`

// pushEntrypoints makes images of tiny with different entrypoints.
func (s *site) pushEntrypoints(t *testing.T) {
	t.Helper()
	r := s.startTrickling(t)
	base, err := images.ReadLayout(images.Layout(t, "tiny"), images.Tag)
	if err != nil {
		t.Fatal(err)
	}
	more, err := images.FromFiles(v1.Config{}, []images.File{images.Program("entry.sh", entryScript)})
	if err != nil {
		t.Fatal(err)
	}
	layers, err := more.Layers()
	if err != nil {
		t.Fatal(err)
	}
	for name, words := range map[string][]string{"script": {"/entry.sh"}, "name": {"env", "MADE=by env"}, "missing": {"/nowhere", "--"}, "none": nil} {
		img, err := mutate.AppendLayers(base, layers...)
		if err != nil {
			t.Fatal(err)
		}
		config, err := img.ConfigFile()
		if err != nil {
			t.Fatal(err)
		}
		changed := config.Config.DeepCopy()
		changed.Entrypoint = words
		if img, err = mutate.Config(img, *changed); err != nil {
			t.Fatal(err)
		}
		if _, err := images.Push(t.Context(), r.reg.Host, name+":1", img); err != nil {
			t.Fatal(err)
		}
	}
}

// TestEntrypoint has the image's entrypoint run before the tasks.
func TestEntrypoint(t *testing.T) {
	image := func(name string) string { return " --container-image=" + trickle + "/" + name + ":1 " }
	on := " --container-entrypoint" + image("script")
	n1 := "srun -n1 -w n1" + on
	bothWays(t, func(t *testing.T, s *site) {
		s.prepareNames(t)
		s.pushEntrypoints(t)
		for _, tc := range []struct {
			name, script   string
			code           int
			stdout, stderr string
		}{
			{
				"all tasks of two nodes", "rm -f /shared/count; ENTRY_COUNT=/shared/count GIVEN=job srun -N2 -n4 --ntasks-per-node=2" + on +
					`sh -c 'echo "$MADE $PATH" ${TINY_IMAGE:-gone} $SLURM_PROCID "$LINES"' | sort | uniq -c; sort /shared/count`, 0,
				`(?s)^ +1 here:job /made:\S+ gone 0 one\n +1 .* gone 3 one\n +4 two\n0\n2\n$`, ``,
			},
			{"without it", "srun -n1 -w n1" + image("script") + "sh -c 'echo ${MADE:-none}; ls -d /.berth-*'", 1, `^none\n$`, `(?m)No such file`},
			{"its output", n1 + "--container-entrypoint-log echo task", 0, `^task\n$`, `(?m)^hello from the entrypoint$`},
			{"what the job keeps", "MADE=mine GIVEN=x PATH=/mine:$PATH " + n1 + "--container-env=MADE sh -c 'echo $MADE'", 0, `^mine\n$`, ``},
			{"by name, in PATH", "srun -n1 -w n1 --container-entrypoint" + image("name") + "sh -c 'echo $MADE'", 0, `^by env\n$`, ``},
			{"no entrypoint", "srun -n1 -w n1 --container-entrypoint" + image("none") + "echo task", 0, `^task\n$`, ``},
			{"fails", "ENTRY=fail " + n1 + "echo task", 1, `^$`, `(?s)entrypoint: hello from.*/entry.sh ended with exit status 3\nberth:   --no-container-entrypoint`},
			{"ignores its command", "ENTRY=ignore srun -N2 -n4" + on + "echo task", 1, `^$`, `ended without running the command`},
			{"hangs", "ENTRY=hang " + n1 + "echo task", 1, `^$`, `(?s)did not run its command within 3 s\nberth:   --no-container-entrypoint.*container.entrypoint_timeout`},
			{"does not end", "ENTRY=stay " + n1 + "echo task", 1, `^$`, `has run its command, but did not end within 3 s`},
			{"is missing", "srun -n1 -w n1 --container-entrypoint" + image("missing") + "echo task", 1, `^$`, `entrypoint /nowhere, or its interpreter, is not in the container\nberth:   --no-`},
			{"prints much", "ENTRY=much " + n1 + "echo task", 0, `^task\n$`, ``},
			{"leaves too many variables", "ENTRY=big " + n1 + "echo task", 1, `^$`, `leaves variables of more than 2 MiB`},
			{"starts its command by another program", "ENTRY=closed " + n1 + "sh -c 'echo $MADE'", 0, `^here:\n$`, ``},
			{"leaves a process", "ENTRY=left " + n1 + "sh -c 'sleep 1; kill -0 $(cat /shared/left.pid) && echo lives'", 0, `^lives\n$`, ``},
			{"root in appearance", n1 + "--container-remap-root sh -c 'id -u; echo $MADE'", 0, `^0\nhere:\n$`, ``},
			{"read-only and writable", n1 + "--container-writable sh -c 'touch /f; echo $MADE'", 0, `^here:\n$`, ``},
			{
				"in a batch script and its steps", "cat >job.sh <<'X'\n#!/bin/sh\n#SBATCH -w n1 -n2 --overcommit -o /shared/entry.out\necho batch $MADE\nsrun -n2 sh -c 'echo step $MADE'\nX\nsbatch -W" + on + "job.sh >/dev/null; cat /shared/entry.out; srun -w n1 rm /shared/entry.out job.sh", 0,
				`batch here:`, ``,
			},
			{"a named container", "rm -f /shared/count; ENTRY_COUNT=/shared/count salloc -Q -w n1 -n3 --overcommit bash -c '" +
				"srun --overlap -n1 --container-name=a" + on + "sh -c \"echo \\$MADE >/up; while [ ! -e /down ]; do sleep 0.1; done\" & " +
				"until srun --overlap -n1 --container-name=a:exec sh -c \"ls /up; echo joined \\$MADE\"; do sleep 0.2; done; " +
				"srun --overlap -n1 berth exec --here $SLURM_JOB_ID -- sh -c \"echo exec \\$MADE; touch /down\"; wait'; wc -l </shared/count", 0, `joined here:\nexec here:\n1\n$`, ``},
		} {
			t.Run(tc.name, func(t *testing.T) {
				r := s.expect(t, "alice", tc.script, tc.code, tc.stdout, tc.stderr)
				if tc.code == 0 && tc.stderr == "" && strings.Contains(r.Stderr, "hello") {
					t.Errorf("shows what the entrypoint prints: %v", r)
				}
			})
		}
		t.Run("nothing left", func(t *testing.T) {
			until(t, 30*time.Second, "the user's processes have ended", func() bool {
				return s.With(t).Run(t.Context(), "n1", "root", "pgrep", "-a", "-u", "alice").Stdout == ""
			})
		})
		s.idle(t)
	}, names("job"), withContainer(`entrypoint_timeout = "3s"`), withMore(fmt.Sprintf("[registry.%q]\ninsecure = true\n", trickle)))
}

// TestEntrypointByDefault: the site has it run, and a job says no.
func TestEntrypointByDefault(t *testing.T) {
	s := newSite(t, withConfig("[container]\nentrypoint = true\n"), withMore(fmt.Sprintf("[registry.%q]\ninsecure = true\n", trickle)))
	s.pushEntrypoints(t)
	run := "srun -Q -n1 -w n1 --container-image=" + trickle + "/script:1 "
	say := " sh -c 'echo ${MADE:-none}'"
	s.expect(t, "alice", run+say, 0, `^here:\n$`, `^$`)
	s.expect(t, "alice", "ENTRY=fail "+run+"--no-container-entrypoint"+say, 0, `^none\n$`, `^$`)
	s.expect(t, "alice", "ENTRY=fail PYXIS_CONTAINER_ENTRYPOINT=no "+run+say, 0, `^none\n$`, `^$`)
	s.idle(t)
}
