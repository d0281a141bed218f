package cdi

import (
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/berth-hpc/berth/launcher/devices"
)

// nvidiaProc is where NVIDIA's driver says which GPUs there are.
const nvidiaProc = "/proc/driver/nvidia/gpus"

const nvidiaKind = "nvidia.com/gpu"

// uuids returns the devices of c by their GPU's UUID, which schedulers may
// give instead of a number: the driver says which device file a GPU has.
func uuids(c *devices.Catalogue, proc string) map[string]string {
	files, _ := filepath.Glob(filepath.Join(proc, "*", "information"))
	var aliases map[string]string
	for _, f := range files {
		text, err := os.ReadFile(f)
		if err != nil {
			continue
		}
		uuid, minor := value(string(text), "GPU UUID"), value(string(text), "Device Minor")
		name := byNode(c, "/dev/nvidia"+minor)
		if uuid == "" || minor == "" || name == "" {
			continue
		}
		if aliases == nil {
			aliases = map[string]string{}
		}
		aliases[nvidiaKind+"="+uuid] = name
	}
	return aliases
}

// value reads one line "key: value".
func value(text, key string) string {
	for line := range strings.Lines(text) {
		if k, v, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(k) == key {
			return strings.TrimSpace(v)
		}
	}
	return ""
}

// byNode returns the device that has this file and no other GPU's.
func byNode(c *devices.Catalogue, node string) string {
	for i := range c.Specs {
		if c.Specs[i].Kind != nvidiaKind {
			continue
		}
		for _, d := range c.Specs[i].Devices {
			var gpus []string
			for _, n := range d.ContainerEdits.DeviceNodes {
				if number := strings.TrimPrefix(n.Path, "/dev/nvidia"); number != "" && strings.Trim(number, "0123456789") == "" {
					gpus = append(gpus, n.Path)
				}
			}
			if slices.Equal(gpus, []string{node}) {
				return nvidiaKind + "=" + d.Name
			}
		}
	}
	return ""
}
