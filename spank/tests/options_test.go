package tests

import (
	"os"
	"os/exec"
	"strings"
	"testing"
)

// An optionForm is one option, alone: how it is typed, its variable, and what
// it asks the helper for.
type optionForm struct {
	name     string // without --
	value    string // "" for a flag
	other    string // another valid value; or "--FLAG", the one that contradicts this
	list     bool   // repeated, it accumulates
	bad      string // a value that is refused
	variable string // behind BERTH_CONTAINER_; "" where a variable of another option does it
	asks     string // the record
}

var optionForms = []optionForm{
	{name: "container-image", value: "a", other: "b", bad: "a b", variable: "IMAGE", asks: "image=a"},
	{name: "container-mounts", value: "/a:/b", other: "/c", list: true, bad: "/a:/b,,/c", variable: "MOUNTS", asks: "mounts=/a:/b"},
	{name: "container-workdir", value: "/w", other: "/v", bad: "\x01", variable: "WORKDIR", asks: "workdir=/w"},
	{name: "container-mount-home", other: "--no-container-mount-home", variable: "MOUNT_HOME", asks: "home=1"},
	{name: "no-container-mount-home", other: "--container-mount-home", asks: "home=0"},
	{name: "container-remap-root", other: "--no-container-remap-root", variable: "REMAP_ROOT", asks: "remap=1"},
	{name: "no-container-remap-root", other: "--container-remap-root", asks: "remap=0"},
	{name: "container-writable", other: "--container-readonly", variable: "WRITABLE", asks: "root=writable"},
	{name: "container-readonly", other: "--container-writable", variable: "READONLY", asks: "root=readonly"},
	{name: "container-env", value: "A", other: "B", list: true, bad: "A,,B", variable: "ENV", asks: "env=A"},
	{name: "container-unshare", value: "net", other: "ipc", list: true, bad: "net,", variable: "UNSHARE", asks: "unshare=net"},
	{name: "container-device", value: "/dev/fuse", other: "a/b=c", list: true, bad: "/dev/fuse,", variable: "DEVICE", asks: "device=/dev/fuse"},
	{name: "container-pin", value: "no", other: "require", bad: "maybe", variable: "PIN", asks: "pin=no"},
	{name: "container-slurm", other: "--no-container-slurm", variable: "SLURM", asks: "slurm=1"},
	{name: "no-container-slurm", other: "--container-slurm", asks: "slurm=0"},
	{name: "container-host-mpi", variable: "HOST_MPI", asks: "host_mpi=1"},
	{name: "container-name", value: "x", other: "y", bad: "x:maybe", variable: "NAME", asks: "name=x"},
	{name: "container-save", value: "./a.sqsh", other: "docker://r.example/b:1", bad: "a/", variable: "SAVE", asks: "save=./a.sqsh"},
	{name: "container-entrypoint", other: "--no-container-entrypoint", variable: "ENTRYPOINT", asks: "entrypoint=1"},
	{name: "no-container-entrypoint", other: "--container-entrypoint", asks: "entrypoint=0"},
	{name: "container-entrypoint-log", variable: "ENTRYPOINT_LOG", asks: "image=a"},
}

func (f optionForm) typed(value string) string {
	if f.value == "" {
		return "--" + f.name
	}
	return "--" + f.name + "=" + value
}

// An optionUse is a command line and what becomes of it.
type optionUse struct {
	name string
	env  []string
	args []string
	says string // a line of the output
	not  string // what no line begins with
	bad  bool
}

// uses are the rules that hold for every option.
func (f optionForm) uses() []optionUse {
	image := "--container-image=a"
	key, _, _ := strings.Cut(f.asks, "=")
	uses := []optionUse{
		{name: "once", args: []string{image, f.typed(f.value)}, says: f.asks},
		{name: "twice the same", args: []string{image, f.typed(f.value), f.typed(f.value)}, says: f.asks},
	}
	if key != "image" && key != "name" {
		uses = append(uses, optionUse{name: "without an image", args: []string{f.typed(f.value)}, says: "ignored"})
	}
	if strings.HasPrefix(f.other, "--") {
		uses = append(uses, optionUse{name: "contradicted", args: []string{image, f.typed(""), f.other}, bad: true, says: "contradict each other; give one of them"})
	} else if f.list {
		uses = append(uses, optionUse{name: "accumulated", args: []string{image, f.typed(f.value), f.typed(f.other)}, says: f.other})
	} else if f.other != "" {
		uses = append(uses, optionUse{name: "twice", args: []string{f.typed(f.value), f.typed(f.other)}, bad: true, says: "is given twice with different values"})
	}
	if f.bad != "" {
		uses = append(uses,
			optionUse{name: "bad", args: []string{image, f.typed(f.bad)}, bad: true, says: "--" + f.name},
			optionUse{name: "empty", args: []string{image, f.typed("")}, bad: true, says: "--" + f.name})
	}
	return append(uses, f.variables(image, key)...)
}

// variables are the rules for an option's variable.
func (f optionForm) variables(image, key string) []optionUse {
	if f.variable == "" {
		return nil
	}
	good, bad := f.value, f.bad
	if f.value == "" {
		good, bad = "yes", "maybe"
	}
	var uses []optionUse
	for _, prefix := range []string{"BERTH_CONTAINER_", "PYXIS_CONTAINER_"} {
		uses = append(uses,
			optionUse{name: prefix, env: []string{"BERTH_CONTAINER_IMAGE=a", prefix + f.variable + "=" + good}, says: f.asks},
			optionUse{name: prefix + " bad", env: []string{prefix + f.variable + "=" + bad}, args: []string{image}, bad: true, says: prefix + f.variable})
		if key != "image" {
			uses = append(uses, optionUse{name: prefix + " empty", env: []string{prefix + f.variable + "="}, args: []string{image}, says: "image=a", not: key + "="})
		}
		if f.other == "" {
			continue
		}
		// The command line replaces it, it does not merge.
		other := f.other
		if f.value != "" {
			other = f.typed(f.other)
		}
		uses = append(uses, optionUse{name: prefix + " replaced", env: []string{"BERTH_CONTAINER_IMAGE=a", prefix + f.variable + "=" + good}, args: []string{other}, not: f.asks})
	}
	return append(uses, optionUse{
		name: "the nearer variable", env: []string{"BERTH_CONTAINER_IMAGE=a", "BERTH_CONTAINER_" + f.variable + "=" + good, "PYXIS_CONTAINER_" + f.variable + "=" + bad}, says: f.asks,
	})
}

func (u optionUse) run(t *testing.T, unit string) {
	cmd := exec.CommandContext(t.Context(), unit, append([]string{"type"}, u.args...)...)
	cmd.Env = append(os.Environ(), append(u.env, "ASAN_OPTIONS=detect_leaks=0")...)
	out, err := cmd.Output()
	if (err != nil) != u.bad {
		t.Errorf("%v: %s", err, out)
	}
	if !strings.Contains(string(out), u.says) {
		t.Errorf("no %q in %s", u.says, out)
	}
	for line := range strings.Lines(string(out)) {
		if u.not != "" && strings.HasPrefix(line, u.not) {
			t.Errorf("has %q: %s", u.not, out)
		}
	}
}

// TestOptions holds every option to the same rules, on the command line and in
// the environment.
func TestOptions(t *testing.T) {
	needSlurmHeaders(t)
	unit := compileUnit(t)
	for _, form := range optionForms {
		for _, use := range form.uses() {
			t.Run(form.name+"/"+use.name, func(t *testing.T) { use.run(t, unit) })
		}
	}
	table, err := os.ReadFile(pluginDir + "/options.c")
	if err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(string(table), "\n    {\""); n != len(optionForms) {
		t.Errorf("the plugin has %d options, this table %d", n, len(optionForms))
	}
}
