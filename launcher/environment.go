package launcher

import (
	"fmt"
	"slices"
	"strings"

	"github.com/berth-hpc/berth/fault"
)

// EnvRules are the site's part in a task's environment. Keep and Drop hold
// names; one that ends in * stands for all that begin so.
type EnvRules struct {
	Set  []string `json:"set,omitempty"`  // NAME=VALUE, over the host's and the image's
	Keep []string `json:"keep,omitempty"` // the host's value stays although the image sets it
	Drop []string `json:"drop,omitempty"` // of the host's, unless the user keeps it
}

// Keeps returns what keeps the host's value whatever the image sets: what the
// site says, and what a scheduler or launcher tells its tasks about themselves
// and their devices. An image that was made from inside a job would else give
// every rank the same number.
func (r EnvRules) Keeps() []string {
	return append([]string{
		"SLURM_*", "SLURMD_*", "SPANK_*", "PMI_*", "PMI2_*", "PMIX_*", "PBS_*", "PALS_*", "FLUX_*", "OMPI_COMM_WORLD_*", "MPI_LOCAL*",
		"CUDA_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES", "GPU_DEVICE_ORDINAL", "ZE_AFFINITY_MASK",
	}, r.Keep...)
}

// MaxVariable is how many bytes Linux takes in one NAME=VALUE (MAX_ARG_STRLEN in
// execve(2), without the NUL at the end).
const MaxVariable = 128<<10 - 1

// maxVariableName is what berth-join takes (JOIN_NAME_MAX).
const maxVariableName = 1023

// ImageEnv returns the variables of an image's config. Entries without a name
// or without a value are none, as in other runtimes, and of two with the same
// name the last one counts. The error is the user's.
func ImageEnv(env []string) ([]string, error) {
	var out []string
	seen := map[string]bool{}
	for _, v := range slices.Backward(env) {
		name, _, ok := strings.Cut(v, "=")
		if !ok || name == "" || seen[name] {
			continue
		}
		seen[name] = true
		shown := fault.Clean(name[:min(len(name), 60)])
		switch {
		case strings.Contains(v, "\x00"):
			return nil, badVariable(shown, "it has a NUL byte")
		case len(name) > maxVariableName:
			return nil, badVariable(shown, fmt.Sprintf("its name has %d bytes, more than %d", len(name), maxVariableName))
		case len(v) > MaxVariable:
			return nil, badVariable(shown, fmt.Sprintf("it has %d bytes; Linux gives a program at most %d in one variable", len(v), MaxVariable))
		}
		out = append(out, v)
	}
	slices.Reverse(out)
	return out, nil
}

func badVariable(name, why string) error {
	return &fault.Error{
		Op: "the image's variable " + name + ": " + why, Blame: fault.User,
		Remedy: "rebuild the image without it",
	}
}

// A Variable is one of a task's environment, and why it is there.
type Variable struct {
	Name  string `json:"name"`
	Value string `json:"value"`
	From  string `json:"from"`          // one of the From words
	Gone  bool   `json:"gone"`          // the host has it, the container does not
	Why   string `json:"why,omitempty"` // what it replaces, or why it stays or goes
}

// Where a variable comes from.
const (
	FromHost  = "host"
	FromImage = "image"
	FromSite  = "site"
	FromUser  = "user"
)

// ExplainEnv does what berth-join and the Slurm plugin do (join_set_environment
// in launcher/join/join.c), and says why. The environment of the host has what
// the user set; user names that and what they keep. It is sorted by name.
func ExplainEnv(host, image, user []string, rules EnvRules) []Variable {
	e := explanation{vars: map[string]Variable{}, user: user}
	for _, v := range host {
		name, value, _ := strings.Cut(v, "=")
		e.vars[name] = Variable{Name: name, Value: value, From: FromHost}
		if slices.Contains(user, name) {
			e.vars[name] = Variable{Name: name, Value: value, From: FromUser}
		}
	}
	keep := rules.Keeps()
	for name, v := range e.vars {
		switch {
		case v.From == FromUser || matchesAny(keep, name):
		case name == "LANG" || name == "LANGUAGE" || name == "LC_ALL":
			v.Gone, v.Why = true, "the image may not have the host's language"
		case matchesAny(rules.Drop, name):
			v.Gone, v.Why = true, "container.env.drop"
		}
		e.vars[name] = v
	}
	for _, v := range image {
		name, value, _ := strings.Cut(v, "=")
		e.set(name, value, FromImage, matchesAny(keep, name))
	}
	for _, v := range rules.Set {
		name, value, _ := strings.Cut(v, "=")
		e.set(name, value, FromSite, false)
	}
	return e.sorted()
}

// An explanation is an environment by name, and what the user names of it.
type explanation struct {
	vars map[string]Variable
	user []string
}

func (e explanation) set(name, value, from string, keep bool) {
	old, had := e.vars[name]
	had = had && !old.Gone
	v := Variable{Name: name, Value: value, From: from}
	switch {
	case had && (keep || slices.Contains(e.user, name)):
		v = old
		v.Why = fmt.Sprintf("kept, although the %s sets it", from)
	case had:
		v.Why = fmt.Sprintf("replaces the %s's", old.From)
	}
	e.vars[name] = v
}

func (e explanation) sorted() []Variable {
	var all []Variable
	for _, v := range e.vars {
		all = append(all, v)
	}
	slices.SortFunc(all, func(a, b Variable) int { return strings.Compare(a.Name, b.Name) })
	return all
}

func matchesAny(patterns []string, name string) bool {
	return slices.ContainsFunc(patterns, func(p string) bool {
		prefix, wild := strings.CutSuffix(p, "*")
		return p == name || wild && strings.HasPrefix(name, prefix)
	})
}
