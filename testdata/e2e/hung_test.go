package e2e

import (
	"regexp"
	"testing"
	"time"
)

// TestCancelHungMount ends jobs and steps whose mount never answers, where the
// site has Berth wait for ever.
func TestCancelHungMount(t *testing.T) {
	bothWays(t, func(t *testing.T, s *site) {
		s.MustRun(t.Context(), "n1", "root", "mkdir", "-p", "/data/hung")
		s.hungFolder(t)
		const image = " --container-image=" + tiny + " --container-mounts=/data/hung/x:/x "
		for _, tc := range []struct{ name, job, step, state, says string }{
			{"job", image + "--wrap 'echo ran'", "", "CANCELLED", `CANCELLED`},
			{"step", "--wrap 'srun" + image + "echo ran; echo after $?'", ".0", "COMPLETED", `(?m)^after [1-9]\d*$`},
		} {
			t.Run(tc.name, func(t *testing.T) {
				id := s.submit(t, "-w n1 -o /shared/hung.%j.out "+tc.job)
				until(t, 30*time.Second, "the container's builder asks for the folder", func() bool {
					return s.With(t).Run(t.Context(), "n1", "root", "pgrep", "-f", "[b]erth-create inside").Code == 0
				})
				s.With(t).MustRun(t.Context(), "ctl", "alice", "scancel", id+tc.step)
				state, _ := s.ended(t, id, 20*time.Second)
				out := s.With(t).MustRun(t.Context(), "ctl", "root", "cat", "/shared/hung."+id+".out")
				if state != tc.state || !regexp.MustCompile(tc.says).MatchString(out) || times("^ran$", out) != 0 {
					t.Errorf("want %s and %s: %s, %s", tc.state, tc.says, state, out)
				}
				s.clean(t)
			})
		}
	}, withMore("[container]\nmount_timeout = \"0s\"\n"), withConf("KillWait=5"))
}
