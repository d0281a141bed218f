package config

import (
	"fmt"
	"path/filepath"
	"strings"
)

// Devices say which devices of a machine containers get.
type Devices struct {
	SpecDirs  []string // folders of CDI specs, later ones count more
	Always    []string // vendor/class=name, or a pattern of paths below /dev
	Scheduler []string // KIND=VARIABLE[,VARIABLE...]
}

// What a container's /dev is.
const (
	HostDev    = "host"
	MinimalDev = "minimal"
)

func deviceSettings() []Setting {
	return []Setting{
		{
			Key: "devices.spec_dirs", Open: true, check: absoluteList,
			Doc: "Folders of CDI specs (*.json, *.yaml). Of two specs with the same device the one in the later folder counts. On a managed node root must own folders, specs and the programs that they name; users who run containers by hand may name folders of their own.",
			at:  func(c *Config, _ string) any { return &c.Devices.SpecDirs },
		},
		{
			Key: "devices.always", check: deviceList, Example: `["nvidia.com/gpu=all", "/dev/infiniband", "/dev/hfi1_*"]`,
			Doc: "Devices that every container gets where the machine has them: vendor/class=name or vendor/class=all for CDI devices, or paths below /dev, with * and ?, which matter where container.dev is minimal.",
			at:  func(c *Config, _ string) any { return &c.Devices.Always },
		},
		{
			Key: "devices.scheduler", check: schedulerList, Example: `["example.com/fpga=FPGA_VISIBLE_DEVICES"]`,
			Doc: "Which variables of a task name the devices that the scheduler allocated: the kind of CDI device, =, and the variables, of which the first that is set counts. Their values are the devices' names in the specs, numbers or UUIDs, as lists. Built in: for nvidia.com/gpu SLURM_STEP_GPUS, SLURM_JOB_GPUS, CUDA_VISIBLE_DEVICES; for amd.com/gpu and intel.com/gpu likewise, with ROCR_VISIBLE_DEVICES and GPU_DEVICE_ORDINAL, or ZE_AFFINITY_MASK. In a job, devices of a kind that stands here are for those alone to whom they were allocated.",
			at:  func(c *Config, _ string) any { return &c.Devices.Scheduler },
		},
	}
}

func defaultDevices() Devices {
	return Devices{
		SpecDirs: []string{"/etc/cdi", "/var/run/cdi"},
		Scheduler: []string{
			"nvidia.com/gpu=SLURM_STEP_GPUS,SLURM_JOB_GPUS,CUDA_VISIBLE_DEVICES",
			"amd.com/gpu=SLURM_STEP_GPUS,SLURM_JOB_GPUS,ROCR_VISIBLE_DEVICES,GPU_DEVICE_ORDINAL",
			"intel.com/gpu=SLURM_STEP_GPUS,SLURM_JOB_GPUS,ZE_AFFINITY_MASK",
		},
	}
}

func absoluteList(value any) error {
	for _, p := range value.([]string) {
		if err := absolute(p); err != nil {
			return err
		}
	}
	return nil
}

func deviceList(value any) error {
	for _, d := range value.([]string) {
		if _, err := filepath.Match(d, ""); err != nil {
			return fmt.Errorf("%q: %w", d, err)
		}
		if !strings.HasPrefix(d, "/dev/") && !isDeviceName(d) {
			return fmt.Errorf("%q is neither vendor/class=name nor a path below /dev", d)
		}
	}
	return nil
}

func isDeviceName(d string) bool {
	kind, name, ok := strings.Cut(d, "=")
	return ok && name != "" && isKind(kind)
}

func isKind(kind string) bool {
	vendor, class, ok := strings.Cut(kind, "/")
	return ok && vendor != "" && class != "" && !strings.Contains(class, "/")
}

func schedulerList(value any) error {
	for _, line := range value.([]string) {
		kind, variables, ok := strings.Cut(line, "=")
		if !ok || !isKind(kind) || variables == "" || strings.ContainsAny(variables, "= ") {
			return fmt.Errorf("%q is not VENDOR/CLASS=VARIABLE[,VARIABLE...]", line)
		}
	}
	return nil
}
