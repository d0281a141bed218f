package devices_test

import (
	"path"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/berth-hpc/berth/launcher/devices"
)

// FuzzChoose: whatever users, schedulers and images write, what is chosen is in
// the catalogue or below /dev, and takes no more memory than the words explain.
func FuzzChoose(f *testing.F) {
	for _, s := range []string{"0,2", "0-2", "all", "none", "void", "GPU-aaaa", "9223372036854775806-9223372036854775807", strings.Repeat("0-4096,", 100), "-1", "NoDevFiles"} {
		f.Add("/dev/fuse", s, s, s)
		f.Add("nvidia.com/gpu="+s, "0", "all", "0")
	}
	f.Add("/dev/../etc/shadow", "", "", "")
	c := gpus()
	f.Fuzz(func(t *testing.T, asked, scheduler, image, adapters string) {
		if len(scheduler)+len(image)+len(adapters) > 16<<10 {
			return
		}
		for _, job := range []bool{true, false} {
			wish := devices.Wish{
				Asked: []string{asked}, Always: []string{"/dev/nul*"}, Scheduler: []string{"nvidia.com/gpu=SLURM_STEP_GPUS,CUDA_VISIBLE_DEVICES"}, Job: job, Minimal: true,
				Variables: map[string]string{"CUDA_VISIBLE_DEVICES": scheduler},
			}
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			choice, err := wish.Choose(c, []string{"NVIDIA_VISIBLE_DEVICES=" + image, "MELLANOX_VISIBLE_DEVICES=" + adapters})
			runtime.ReadMemStats(&after)
			if took := after.TotalAlloc - before.TotalAlloc; took > 64<<20 {
				t.Errorf("%d bytes of memory", took)
			}
			if err != nil {
				continue
			}
			for _, n := range choice.Names {
				if !slices.Contains(c.Names(), n) {
					t.Errorf("%q is not in the catalogue", n)
				}
			}
			for _, p := range choice.Files {
				if !strings.HasPrefix(p, "/dev/") || path.Clean(p) != p {
					t.Errorf("the file %q", p)
				}
			}
			edits := c.Edits(choice)
			if slices.ContainsFunc(edits.Hidden, func(p string) bool {
				return slices.ContainsFunc(edits.Nodes, func(n devices.Node) bool { return n.Host == p })
			}) {
				t.Errorf("hidden and given: %+v", edits)
			}
		}
	})
}
