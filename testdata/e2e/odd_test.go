package e2e

import (
	"fmt"
	"regexp"
	"strings"
	"testing"

	"github.com/berth-hpc/berth/testdata/images"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
)

// TestBareImage is an image of static programs alone under Slurm, which runs
// shells for its own purposes in the container.
func TestBareImage(t *testing.T) {
	bare := images.Bare(t)
	image := trickle + "/bare:1"
	bothWays(t, func(t *testing.T, s *site) {
		r := s.startTrickling(t)
		for name, img := range map[string]v1.Image{"bare:1": bare, "musl:1": images.Musl(t)} {
			if _, err := images.Push(t.Context(), r.reg.Host, name, img); err != nil {
				t.Fatal(err)
			}
		}
		for _, tc := range []struct {
			name, script string
			code         int
			want, says   string // regular expressions: all of stdout, a part of stderr
		}{
			{name: "the program", script: "srun --container-image=" + image + " /prog a 'b c'", want: `^a b c\n$`},
			{name: "its exit status", script: "srun --container-image=" + image + " /raw", code: 3, want: `^raw\n$`},
			{name: "the user", script: "srun --container-image=" + image + " /prog id", want: `^2001 /\n$`},
			{name: "variables", script: "srun --container-image=" + image + " /prog env WHOSE", want: `^the image\n$`},
			{name: "the job's rank", script: "srun -n2 --container-image=" + image + " /prog env SLURM_PROCID | sort", want: `^0\n1\n$`},
			{name: "a volume", script: "srun --container-image=" + image + " /prog write /state/x", want: `^wrote /state/x\n$`},
			{name: "a new volume", script: "srun --container-image=" + image + " /prog write /data/new/x", want: `^wrote /data/new/x\n$`},
			{name: "no volume", script: "srun --container-image=" + image + " /prog write /x", code: 1, want: `^/x: (Read-only file system|Permission denied)\n$`},
			{name: "writable", script: "srun --container-writable --container-image=" + image + " /prog write /x", want: `^wrote /x\n$`},
			{name: "a shell", script: "srun --container-image=" + image + " sh -c true", code: 2, want: `^$`, says: `sh.*(not in the container|No such file)`},
			{name: "another C library", script: "srun --container-image=" + trickle + "/musl:1 musl", want: `^musl alice alice /home/alice localhost\n$`},
			{
				name: "a batch script", script: fmt.Sprintf(`printf '#!/bin/sh\necho ran\n' >job.sh; rm -f /shared/bare.out
				sbatch -W -o /shared/bare.out --container-image=%s job.sh >/dev/null; cat /shared/bare.out >&2`, image),
				want: `^$`, says: `/bin/sh`,
			},
		} {
			t.Run(tc.name, func(t *testing.T) {
				r := s.as(t, "alice", tc.script)
				if r.Code != tc.code || !regexp.MustCompile(tc.want).MatchString(r.Stdout) || !regexp.MustCompile(tc.says).MatchString(r.Stderr) {
					t.Errorf("want exit code %d, stdout %s, stderr %s: %v", tc.code, tc.want, tc.says, r)
				}
			})
		}
		s.idle(t)
	}, withMore(fmt.Sprintf("[registry.%q]\ninsecure = true\n", trickle)))
}

// What an image puts into the environment reaches its own programs, and no
// other: what makes the dynamic loader complain would be told by each.
func TestImageVariablesStayInside(t *testing.T) {
	base, err := images.ReadLayout(images.Layout(t, "base"), images.Tag)
	if err != nil {
		t.Fatal(err)
	}
	config, err := base.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	hostile := config.Config.DeepCopy()
	hostile.Env = append(hostile.Env, "LD_PRELOAD=/evil.so", "LD_AUDIT=/evil.so", "BASH_ENV=/evil.sh", "SLURM_CONF=/evil.conf", "SLURM_JOB_ID=999999", "GODEBUG=evil=1")
	img, err := mutate.Config(base, *hostile)
	if err != nil {
		t.Fatal(err)
	}
	s := newSite(t, withMore(fmt.Sprintf("[registry.%q]\ninsecure = true\n", trickle)))
	r := s.startTrickling(t)
	if _, err := images.Push(t.Context(), r.reg.Host, "hostile:1", img); err != nil {
		t.Fatal(err)
	}
	got := s.as(t, "alice", "srun -w n1 --container-image="+trickle+"/hostile:1 env")
	if got.Code != 0 || !regexp.MustCompile(`(?m)^LD_PRELOAD=/evil\.so$`).MatchString(got.Stdout) || regexp.MustCompile(`(?m)^SLURM_JOB_ID=999999$`).MatchString(got.Stdout) {
		t.Errorf("the command has %v", got)
	}
	if n := strings.Count(got.Stderr, "from LD_PRELOAD cannot be preloaded"); n != 1 {
		t.Errorf("%d programs had the image's LD_PRELOAD: %v", n, got)
	}
	s.idle(t)
	logs := s.With(t).Run(t.Context(), "n1", "root", "grep", "-r", "evil", "/var/log/slurm", "/run/berth/step.log")
	if logs.Stdout != "" {
		t.Errorf("a program outside of the container complains: %v", logs)
	}
}

// The site's task prolog needs its interpreter in the container; without it
// the job says which one is missing, and the node takes jobs.
func TestTaskPrologWithoutItsShell(t *testing.T) {
	prolog := writeFile(t, "taskprolog", "#!/bin/sh\necho export FROM_PROLOG=yes\n")
	s := newSite(t, withConf("TaskProlog=/etc/slurm-taskprolog"), withMore(fmt.Sprintf("[registry.%q]\ninsecure = true\n", trickle)), func(set *setup) {
		set.Cluster.Files = append(set.Cluster.Files, prolog+":/etc/slurm-taskprolog")
	})
	s.MustRun(t.Context(), "n1", "root", "chmod", "755", "/etc/slurm-taskprolog")
	r := s.startTrickling(t)
	if _, err := images.Push(t.Context(), r.reg.Host, "bare:1", images.Bare(t)); err != nil {
		t.Fatal(err)
	}
	got := s.as(t, "alice", "srun -w n1 --container-image="+trickle+"/bare:1 /prog a")
	if got.Code == 0 || !strings.Contains(got.Stderr, "the task prolog /etc/slurm-taskprolog begins with #!/bin/sh, which is not in the container") {
		t.Error(got)
	}
	s.idle(t)
}
