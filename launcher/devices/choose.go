package devices

import (
	"errors"
	"fmt"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/berth-hpc/berth/fault"
)

// A Wish is everything that says which devices a container is to have.
type Wish struct {
	// Asked are the user's: vendor/class=name, vendor/class=all, or the path of
	// a device file. Always are the site's, in the same form; a path may be a
	// pattern. What is not on this machine is left out of Always alone.
	Asked  []string `json:"asked,omitempty"`
	Always []string `json:"always,omitempty"`
	// Scheduler says which variables hold what the scheduler allocated, in the
	// form KIND=VARIABLE[,VARIABLE...]; the first that is set counts.
	Scheduler []string `json:"scheduler,omitempty"`
	// Variables are those of the task that may matter, by name.
	Variables map[string]string `json:"variables,omitempty"`
	// Job says that a scheduler runs the container: a kind of Scheduler's of
	// which nothing is allocated is not for it.
	Job bool `json:"job,omitempty"`
	// Minimal wants a /dev of what every program needs and of what is chosen.
	Minimal bool `json:"minimal,omitempty"`
}

// A Choice is what a container gets.
type Choice struct {
	Names []string // of the catalogue
	Files []string // device files and folders by path
	// Governed are the kinds of which the container sees what it was given and
	// nothing else.
	Governed []string
	// Env numbers the allocated devices as the container sees them.
	Env []string
	// Notes are for the user.
	Notes []string

	optional []string // of Files: left out where they are missing
}

// Kinds whose devices images may ask for by a variable (see
// NVIDIA's container toolkit and Enroot's hooks for the values).
const (
	nvidiaKind    = "nvidia.com/gpu"
	nvidiaVisible = "NVIDIA_VISIBLE_DEVICES"
	mellanox      = "MELLANOX_VISIBLE_DEVICES"
)

// Choose decides. image are the image's variables. The error is a fault.
func (w *Wish) Choose(c *Catalogue, image []string) (*Choice, error) {
	ch := new(Choice)
	for _, a := range w.Asked {
		if err := ch.ask(c, a); err != nil {
			return nil, err
		}
	}
	for _, a := range w.Always {
		ch.always(c, a)
	}
	for _, line := range w.Scheduler {
		kind, variables, _ := strings.Cut(line, "=")
		ch.allocate(w, c, kind, strings.Split(variables, ","), image)
	}
	if w.Minimal {
		ch.optional = infiniband(w.variable(mellanox, image))
		ch.Files = append(ch.Files, ch.optional...)
	}
	ch.tidy()
	return ch, nil
}

// variable is what the task has, else what the image says.
func (w *Wish) variable(name string, image []string) string {
	if v := w.Variables[name]; v != "" {
		return v
	}
	for _, e := range image {
		if v, ok := strings.CutPrefix(e, name+"="); ok {
			return v
		}
	}
	return ""
}

func (ch *Choice) ask(c *Catalogue, asked string) error {
	if strings.HasPrefix(asked, "/") {
		if !isDevicePath(asked) {
			return unknownDevice(asked, errors.New("it is no path below /dev"), "name a file or folder below /dev, or a device as vendor/class=name")
		}
		ch.Files = append(ch.Files, path.Clean(asked))
		return nil
	}
	kind, name, ok := strings.Cut(asked, "=")
	if !ok || !strings.Contains(kind, "/") || name == "" {
		return unknownDevice(asked, errors.New("it is neither vendor/class=name nor a path"), "write it as in nvidia.com/gpu=0, nvidia.com/gpu=all or /dev/fuse; berth devices lists what there is")
	}
	found := c.match(kind, name)
	if len(found) == 0 {
		return unknownDevice(asked, c.explain(kind), "berth devices, on the compute node, lists what there is")
	}
	ch.Names = append(ch.Names, found...)
	ch.Governed = append(ch.Governed, kind)
	return nil
}

func unknownDevice(name string, cause error, remedy string) error {
	return &fault.Error{Op: "find the device", Arg: fault.Clean(name), Err: cause, Blame: fault.User, Remedy: remedy}
}

// isDevicePath keeps what is asked for by path below /dev.
func isDevicePath(p string) bool { return strings.HasPrefix(path.Clean(p), "/dev/") }

// match returns the devices that a name stands for: a spec may have one that
// is called all, else it is every one.
func (c *Catalogue) match(kind, name string) []string {
	full := kind + "=" + name
	if s, _ := c.find(full); s != nil {
		return []string{full}
	}
	if other, ok := c.Aliases[full]; ok {
		return []string{other}
	}
	if name == "all" {
		return c.kind(kind)
	}
	return nil
}

// explain says why a kind has no such device.
func (c *Catalogue) explain(kind string) error {
	names := c.kind(kind)
	if len(names) == 0 {
		return fmt.Errorf("no CDI spec on this machine has devices of the kind %s", fault.Clean(kind))
	}
	return fmt.Errorf("this machine has %s", strings.Join(names, " "))
}

func (ch *Choice) always(c *Catalogue, item string) {
	if strings.HasPrefix(item, "/") {
		found, _ := filepath.Glob(item) // the pattern was checked with the settings
		ch.Files = append(ch.Files, slices.DeleteFunc(found, func(p string) bool { return !isDevicePath(p) })...)
		return
	}
	kind, name, _ := strings.Cut(item, "=")
	if found := c.match(kind, name); len(found) > 0 {
		ch.Names = append(ch.Names, found...)
		ch.Governed = append(ch.Governed, kind)
	}
}

// allocate takes what the scheduler gave of a kind, or, where no scheduler
// decides, what variables ask for.
func (ch *Choice) allocate(w *Wish, c *Catalogue, kind string, variables, image []string) {
	if len(c.kind(kind)) == 0 {
		return
	}
	if w.Job {
		ch.Governed = append(ch.Governed, kind)
	}
	names, given := ch.given(w, c, kind, variables)
	wanted, said := nvidiaWish(w, kind, image)
	switch {
	case given && said:
		names = narrow(c, kind, names, wanted)
	case !given && !w.Job && said:
		names = c.choose(kind, wanted)
	}
	if len(names) > 0 {
		ch.Governed = append(ch.Governed, kind)
	}
	ch.Names = append(ch.Names, names...)
}

// given returns the devices in the first variable that is set.
func (ch *Choice) given(w *Wish, c *Catalogue, kind string, variables []string) (names []string, set bool) {
	for _, v := range variables {
		value := w.Variables[v]
		if value == "" {
			continue
		}
		list := splitList(value)
		names = c.choose(kind, list)
		if len(names) < len(list) && !nothing(value) {
			ch.Notes = append(ch.Notes, fmt.Sprintf("%s=%s names devices that no CDI spec of this machine has: %v", v, fault.Clean(value), c.explain(kind)))
		}
		ch.renumber(w, list, variables)
		return names, true
	}
	return nil, false
}

// nvidiaWish is what NVIDIA_VISIBLE_DEVICES says of a kind; "void" and nothing
// say nothing.
func nvidiaWish(w *Wish, kind string, image []string) (list []string, said bool) {
	value := w.variable(nvidiaVisible, image)
	if kind != nvidiaKind || value == "" || value == "void" {
		return nil, false
	}
	return splitList(value), true
}

// narrow keeps what is wanted of what is given.
func narrow(c *Catalogue, kind string, given, wanted []string) []string {
	if slices.Contains(wanted, "all") {
		return given
	}
	chosen := c.choose(kind, wanted)
	return slices.DeleteFunc(given, func(n string) bool { return !slices.Contains(chosen, n) })
}

// choose returns the devices of a kind with these names, numbers or UUIDs.
func (c *Catalogue) choose(kind string, list []string) []string {
	var names []string
	for _, item := range list {
		names = append(names, c.match(kind, item)...)
	}
	return names
}

// nothing is what schedulers write where nothing is allocated.
func nothing(value string) bool {
	return value == "NoDevFiles" || value == "none" || value == "-1"
}

// maxList bounds how many devices a variable can name; it may be an image's.
const maxList = 4096

// splitList reads 0,2 and Slurm's 0-2. A range that is too long is left as it
// is, which is no device's name.
func splitList(value string) []string {
	var list []string
	for _, item := range strings.FieldsFunc(value, func(r rune) bool { return r == ',' || r == ' ' }) {
		room := maxList - len(list)
		if room <= 0 {
			break
		}
		first, last, _ := strings.Cut(item, "-")
		from, err1 := strconv.ParseUint(first, 10, 31)
		to, err2 := strconv.ParseUint(last, 10, 31)
		if err1 != nil || err2 != nil || to < from || to-from >= uint64(room) {
			list = append(list, item)
			continue
		}
		for n := from; n <= to; n++ {
			list = append(list, strconv.FormatUint(n, 10))
		}
	}
	return list
}

// renumber corrects the variables by which programs find their devices.
// Without a device cgroup Slurm numbers all of the node's in them; a program
// that sees three of eight counts those.
func (ch *Choice) renumber(w *Wish, allocated, variables []string) {
	inside := make([]string, len(allocated))
	for i := range allocated {
		inside[i] = strconv.Itoa(i)
	}
	for _, v := range variables {
		if strings.HasPrefix(v, "SLURM_") || w.Variables[v] == "" {
			continue
		}
		if list := splitList(w.Variables[v]); slices.Equal(list, allocated) && !slices.Equal(list, inside) && allNumbers(list) {
			ch.Env = append(ch.Env, v+"="+strings.Join(inside, ","))
		}
	}
}

func allNumbers(list []string) bool {
	return !slices.ContainsFunc(list, func(s string) bool { _, err := strconv.Atoi(s); return err != nil })
}

// infiniband returns the files of the adapters in a value of
// MELLANOX_VISIBLE_DEVICES: all, none, void, or numbers.
func infiniband(value string) []string {
	switch value {
	case "", "void", "none":
		return nil
	case "all":
		return []string{"/dev/infiniband"}
	}
	files := []string{"/dev/infiniband/rdma_cm"}
	for _, n := range splitList(value) {
		if allNumbers([]string{n}) {
			files = append(files, "/dev/infiniband/uverbs"+n, "/dev/infiniband/umad"+n, "/dev/infiniband/issm"+n)
		}
	}
	return files
}

// tidy drops what is there twice; the order of names is that of the wish.
func (ch *Choice) tidy() {
	ch.Names, ch.Files = unique(ch.Names), unique(ch.Files)
	ch.Governed, ch.Notes = unique(ch.Governed), unique(ch.Notes)
}

func unique(list []string) []string {
	var out []string
	for _, s := range list {
		if !slices.Contains(out, s) {
			out = append(out, s)
		}
	}
	return out
}

// TakeVariables keeps what may matter of an environment.
func (w *Wish) TakeVariables(environ []string) {
	w.Variables = map[string]string{}
	for _, e := range environ {
		if name, value, ok := strings.Cut(e, "="); ok && (w.reads(name) || strings.HasSuffix(name, "_VISIBLE_DEVICES")) {
			w.Variables[name] = value
		}
	}
}

func (w *Wish) reads(name string) bool {
	return slices.ContainsFunc(w.Scheduler, func(line string) bool {
		_, variables, _ := strings.Cut(line, "=")
		return slices.Contains(strings.Split(variables, ","), name)
	})
}
