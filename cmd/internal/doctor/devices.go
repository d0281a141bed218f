package doctor

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/berth-hpc/berth/launcher/devices/cdi"
	"github.com/berth-hpc/berth/launcher/hooks"
	"github.com/berth-hpc/berth/launcher/trust"
)

// checkDevices tells which devices containers can be given, and which specs
// are not used.
func checkDevices(_ context.Context, n *Node) []Finding {
	catalogue, problems := cdi.Load(n.SpecDirs, n.owner())
	var found []Finding
	for _, p := range problems {
		found = append(found, one(Warn, p.Path+" is not used: "+p.Err,
			"correct the spec; root must own it, its folders and the programs that it names, and nobody else may write there")...)
	}
	for _, name := range catalogue.Names() {
		for _, f := range catalogue.FilesOf(name) {
			if _, err := os.Stat(f); err != nil {
				found = append(found, one(Warn, fmt.Sprintf("%s of %s: %s is missing", name, catalogue.SpecOf(name), f),
					"make the spec again (for NVIDIA: nvidia-ctk cdi generate --output=/etc/cdi/nvidia.yaml), and load the driver at boot")...)
			}
		}
	}
	if catalogue.Empty() {
		return append(found, good("no CDI specs in "+strings.Join(n.SpecDirs, ", ")+"; containers see the machine's device files")...)
	}
	return append(found, good(fmt.Sprintf("%d by CDI: %s", len(catalogue.Names()), shorten(catalogue.Names())))...)
}

// checkHooks tells which hooks run in containers, and which files are not used.
func checkHooks(_ context.Context, n *Node) []Finding {
	all, problems := hooks.Load(n.HookDirs, n.owner())
	var found []Finding
	for _, p := range problems {
		found = append(found, one(Warn, p.Path+" is not used: "+p.Err,
			"correct the file; root must own it, its folders and its program, and nobody else may write there")...)
	}
	for _, h := range all {
		if slices.Contains(h.Stages, "poststop") {
			found = append(found, one(Warn, h.Name+": the stage poststop is never run", "let the job's epilog do it")...)
		}
	}
	if len(all) == 0 {
		return found
	}
	return append(found, good(fmt.Sprintf("%d in %s", len(all), strings.Join(n.HookDirs, ", ")))...)
}

// owner is whose files count, for who examines.
func (n *Node) owner() trust.Owner {
	if n.Root {
		return 0
	}
	return trust.Owner(os.Getuid())
}

// shorten keeps a line a line on machines with many devices.
func shorten(names []string) string {
	const most = 16
	if len(names) > most {
		return strings.Join(names[:most], " ") + " …"
	}
	return strings.Join(names, " ")
}
