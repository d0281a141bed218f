package devices_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/berth-hpc/berth/launcher/devices"
	"github.com/google/go-cmp/cmp"
	specs "tags.cncf.io/container-device-interface/specs-go"
)

func node(p string) *specs.DeviceNode { return &specs.DeviceNode{Path: p} }

// gpus is a catalogue of four GPUs, as nvidia-ctk names them, and an FPGA.
func gpus() *devices.Catalogue {
	c := &devices.Catalogue{Aliases: map[string]string{"nvidia.com/gpu=GPU-aaaa": "nvidia.com/gpu=1"}}
	nv := devices.Spec{Path: "/etc/cdi/nvidia.yaml"}
	nv.Kind = "nvidia.com/gpu"
	nv.ContainerEdits.DeviceNodes = []*specs.DeviceNode{node("/dev/nvidiactl")}
	nv.ContainerEdits.Env = []string{"NVIDIA_VISIBLE_DEVICES=void"}
	for _, n := range []string{"0", "1", "2", "3"} {
		nv.Devices = append(nv.Devices, specs.Device{Name: n, ContainerEdits: specs.ContainerEdits{DeviceNodes: []*specs.DeviceNode{node("/dev/nvidia" + n)}}})
	}
	fpga := devices.Spec{Path: "/etc/cdi/fpga.json"}
	fpga.Kind = "example.com/fpga"
	fpga.Devices = []specs.Device{{Name: "x", ContainerEdits: specs.ContainerEdits{DeviceNodes: []*specs.DeviceNode{node("/dev/fpga0")}}}}
	c.Specs = []devices.Spec{nv, fpga}
	return c
}

func TestChoose(t *testing.T) {
	scheduler := []string{"nvidia.com/gpu=SLURM_STEP_GPUS,SLURM_JOB_GPUS,CUDA_VISIBLE_DEVICES"}
	for _, tc := range []struct {
		name  string
		wish  devices.Wish
		image []string
		want  string // names
		env   string
	}{
		{name: "nothing"},
		{name: "asked", wish: devices.Wish{Asked: []string{"nvidia.com/gpu=2", "example.com/fpga=all"}}, want: "nvidia.com/gpu=2 example.com/fpga=x"},
		{name: "all", wish: devices.Wish{Asked: []string{"nvidia.com/gpu=all"}}, want: "nvidia.com/gpu=0 nvidia.com/gpu=1 nvidia.com/gpu=2 nvidia.com/gpu=3"},
		{name: "always, where there is one", wish: devices.Wish{Always: []string{"example.com/fpga=x", "nosuch.org/x=all"}}, want: "example.com/fpga=x"},
		{name: "of the step", wish: devices.Wish{Job: true, Variables: map[string]string{"SLURM_STEP_GPUS": "1,3", "SLURM_JOB_GPUS": "0-3"}}, want: "nvidia.com/gpu=1 nvidia.com/gpu=3"},
		{name: "of the job", wish: devices.Wish{Job: true, Variables: map[string]string{"SLURM_JOB_GPUS": "1-2"}}, want: "nvidia.com/gpu=1 nvidia.com/gpu=2"},
		{name: "by UUID", wish: devices.Wish{Job: true, Variables: map[string]string{"CUDA_VISIBLE_DEVICES": "GPU-aaaa"}}, want: "nvidia.com/gpu=1"},
		{name: "numbered as seen", wish: devices.Wish{Job: true, Variables: map[string]string{"SLURM_STEP_GPUS": "1,3", "CUDA_VISIBLE_DEVICES": "1,3"}}, want: "nvidia.com/gpu=1 nvidia.com/gpu=3", env: "CUDA_VISIBLE_DEVICES=0,1"},
		{name: "numbered by the cgroup already", wish: devices.Wish{Job: true, Variables: map[string]string{"SLURM_STEP_GPUS": "1,3", "CUDA_VISIBLE_DEVICES": "0,1"}}, want: "nvidia.com/gpu=1 nvidia.com/gpu=3"},
		{name: "none allocated", wish: devices.Wish{Job: true, Variables: map[string]string{"CUDA_VISIBLE_DEVICES": "NoDevFiles"}}},
		{name: "an image wants all by hand", image: []string{"NVIDIA_VISIBLE_DEVICES=all"}, want: "nvidia.com/gpu=0 nvidia.com/gpu=1 nvidia.com/gpu=2 nvidia.com/gpu=3"},
		{name: "an image wants all in a job", wish: devices.Wish{Job: true, Variables: map[string]string{"SLURM_STEP_GPUS": "2"}}, image: []string{"NVIDIA_VISIBLE_DEVICES=all"}, want: "nvidia.com/gpu=2"},
		{name: "an image wants all in a job without", wish: devices.Wish{Job: true}, image: []string{"NVIDIA_VISIBLE_DEVICES=all"}},
		{name: "the user wants none", wish: devices.Wish{Variables: map[string]string{"NVIDIA_VISIBLE_DEVICES": "none"}}, image: []string{"NVIDIA_VISIBLE_DEVICES=all"}},
		{name: "the user wants none of those of the job", wish: devices.Wish{Job: true, Variables: map[string]string{"SLURM_STEP_GPUS": "2", "NVIDIA_VISIBLE_DEVICES": "none"}}},
		{name: "void says nothing", wish: devices.Wish{Job: true, Variables: map[string]string{"SLURM_STEP_GPUS": "2", "NVIDIA_VISIBLE_DEVICES": "void"}}, want: "nvidia.com/gpu=2"},
		{name: "the user wants some", wish: devices.Wish{Variables: map[string]string{"NVIDIA_VISIBLE_DEVICES": "0,GPU-aaaa"}}, want: "nvidia.com/gpu=0 nvidia.com/gpu=1"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			tc.wish.Scheduler = scheduler
			ch, err := tc.wish.Choose(gpus(), tc.image)
			if err != nil {
				t.Fatal(err)
			}
			if got := strings.Join(ch.Names, " "); got != tc.want {
				t.Errorf("got %q, want %q", got, tc.want)
			}
			if got := strings.Join(ch.Env, " "); got != tc.env {
				t.Errorf("variables %q, want %q", got, tc.env)
			}
		})
	}
}

// A device of another kind than was given stays as the machine has it.
func TestHidden(t *testing.T) {
	scheduler := []string{"nvidia.com/gpu=SLURM_STEP_GPUS"}
	for _, tc := range []struct {
		name string
		wish devices.Wish
		want []string
	}{
		{"by hand", devices.Wish{}, nil},
		{"a job with one", devices.Wish{Job: true, Variables: map[string]string{"SLURM_STEP_GPUS": "1"}}, []string{"/dev/nvidia0", "/dev/nvidia2", "/dev/nvidia3"}},
		{"a job with none", devices.Wish{Job: true}, []string{"/dev/nvidiactl", "/dev/nvidia0", "/dev/nvidia1", "/dev/nvidia2", "/dev/nvidia3"}},
		{"asked for", devices.Wish{Asked: []string{"nvidia.com/gpu=0"}}, []string{"/dev/nvidia1", "/dev/nvidia2", "/dev/nvidia3"}},
	} {
		tc.wish.Scheduler = scheduler
		ch, err := tc.wish.Choose(gpus(), nil)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(tc.want, gpus().Edits(ch).Hidden); diff != "" {
			t.Errorf("%s: %s", tc.name, diff)
		}
	}
}

func TestEditsOfSeveralDevices(t *testing.T) {
	ch, err := (&devices.Wish{Asked: []string{"nvidia.com/gpu=all"}}).Choose(gpus(), nil)
	if err != nil {
		t.Fatal(err)
	}
	e := gpus().Edits(ch)
	if len(e.Env) != 1 || len(e.Nodes) != 5 || e.Nodes[0].Path != "/dev/nvidiactl" {
		t.Errorf("%+v", e)
	}
}

func TestInfiniband(t *testing.T) {
	w := devices.Wish{Minimal: true, Variables: map[string]string{"MELLANOX_VISIBLE_DEVICES": "0"}}
	ch, err := w.Choose(new(devices.Catalogue), nil)
	if err != nil || !slices.Contains(ch.Files, "/dev/infiniband/uverbs0") || slices.Contains(ch.Files, "/dev/infiniband") {
		t.Errorf("%+v, %v", ch, err)
	}
}

// The work of NVIDIA's hooks, as nvidia-ctk 1.17 and older releases write it.
func TestKnownHooks(t *testing.T) {
	e := devices.Edits{Hooks: []specs.Hook{
		{HookName: "createContainer", Path: "/usr/bin/nvidia-cdi-hook", Args: []string{"nvidia-cdi-hook", "create-symlinks", "--link", "../a::/usr/lib/b", "--link=c::/d"}},
		{HookName: "createContainer", Path: "/usr/bin/nvidia-ctk", Args: []string{"nvidia-ctk", "hook", "update-ldcache", "--folder", "/usr/lib/x", "--folder", "/usr/lib/y"}},
		{HookName: "createContainer", Path: "/usr/bin/nvidia-cdi-hook", Args: []string{"nvidia-cdi-hook", "enable-cuda-compat", "--host-driver-version=550.54.15"}},
		{HookName: "createContainer", Path: "/usr/bin/nvidia-cdi-hook", Args: []string{"nvidia-cdi-hook", "chmod", "--mode", "755", "--path", "/dev/dri"}},
		{HookName: "createContainer", Path: "/usr/bin/nvidia-cdi-hook", Args: []string{"nvidia-cdi-hook", "of-next-year"}},
		{HookName: "createContainer", Path: "/opt/other/hook", Args: []string{"hook", "update-ldcache"}},
	}}
	got := e.TakeWork()
	want := devices.Work{
		Links:   []devices.Link{{Target: "../a", Path: "/usr/lib/b"}, {Target: "c", Path: "/d"}},
		Folders: []string{"/usr/lib/x", "/usr/lib/y"}, Compat: "550.54.15",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if len(e.Hooks) != 2 || e.Hooks[0].Args[1] != "of-next-year" || e.Hooks[1].Path != "/opt/other/hook" {
		t.Errorf("left to run: %+v", e.Hooks)
	}
}
