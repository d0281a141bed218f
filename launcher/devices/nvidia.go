package devices

import (
	"path"
	"slices"
	"strings"

	specs "tags.cncf.io/container-device-interface/specs-go"
)

// Work is what the hooks of NVIDIA's container toolkit do to a container.
// Berth does it itself: the hooks change the root file system after it is put
// together, which a read-only one does not allow, and each costs the start of
// a program.
type Work struct {
	Links   []Link   // symbolic links to make
	Folders []string // of libraries that the loader is to find
	// Compat is the driver's version if a newer libcuda of the image's may be
	// put before it, "" for none.
	Compat string
}

// A Link is a symbolic link with its target as it is to stand there.
type Link struct{ Target, Path string }

// Known says whether Berth does a hook's work itself.
func Known(h *specs.Hook) bool { return h != nil && new(Work).take(h) }

// TakeWork moves the hooks whose work is known out of e.
func (e *Edits) TakeWork() Work {
	var w Work
	e.Hooks = slices.DeleteFunc(e.Hooks, func(h specs.Hook) bool { return w.take(&h) })
	return w
}

// take reads a hook's command line: nvidia-cdi-hook COMMAND, nvidia-ctk hook
// COMMAND.
func (w *Work) take(h *specs.Hook) bool {
	if program := path.Base(h.Path); program != "nvidia-cdi-hook" && program != "nvidia-ctk" || len(h.Args) < 2 {
		return false
	}
	args := h.Args[1:]
	if args[0] == "hook" {
		args = args[1:]
	}
	if len(args) == 0 {
		return false
	}
	options := parseOptions(args[1:])
	switch args[0] {
	case "create-symlinks":
		for _, v := range options["link"] {
			if target, link, ok := strings.Cut(v, "::"); ok {
				w.Links = append(w.Links, Link{target, link})
			}
		}
	case "update-ldcache", "create-soname-symlinks":
		w.Folders = unique(append(w.Folders, options["folder"]...))
	case "enable-cuda-compat":
		w.Compat = strings.Join(options["host-driver-version"], "")
	case "chmod": // folders on the way to devices are open to all anyway
	case "disable-device-node-modification": // nobody can make device files there
	default:
		return false
	}
	return true
}

// parseOptions reads --name value and --name=value.
func parseOptions(args []string) map[string][]string {
	found := map[string][]string{}
	for i := 0; i < len(args); i++ {
		name, value, inOne := strings.Cut(strings.TrimLeft(args[i], "-"), "=")
		if !strings.HasPrefix(args[i], "-") {
			continue
		}
		if !inOne && i+1 < len(args) {
			i++
			value = args[i]
		}
		found[name] = append(found[name], value)
	}
	return found
}
