package step

import (
	"testing"

	"github.com/berth-hpc/berth/launcher"
)

// A container knows its job by the scheduler's own name for it.
func TestJobIsNamedAsItsSchedulerDoes(t *testing.T) {
	for want, r := range map[string]*Request{"4711": {Job: 4711}, "12[3].pbs": {ID: "12[3].pbs"}} {
		if got := r.launcherRequest(&view{job: launcher.Job{Dir: "/"}}, Settings{Scratch: func(int64) launcher.Scratch { return launcher.Scratch{} }}).Job.ID; got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	}
}
