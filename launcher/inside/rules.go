package inside

import (
	"fmt"
	"slices"
	"strings"

	"github.com/berth-hpc/berth/launcher"
)

// rules are the site's MountRules with the places that their paths lead to:
// "/db" may be a link.
type rules struct {
	launcher.MountRules
}

// resolved returns rules whose lists also have what real finds at each path.
func resolved(r launcher.MountRules, real func(string) (string, error)) rules {
	for _, list := range []*[]string{&r.Allow, &r.Deny, &r.ReadOnly} {
		both := slices.Clone(*list)
		for _, p := range *list {
			if there, err := real(p); err == nil { // what is not there hides nothing
				both = append(both, there)
			}
		}
		*list = both
	}
	return rules{r}
}

// any reports whether there is anything to apply to a mount of this party.
func anyRule(r launcher.MountRules, by party) bool {
	switch by {
	case byUser:
		return r.Forbid || len(r.Allow)+len(r.Deny)+len(r.ReadOnly) > 0
	case byJob:
		return len(r.Deny)+len(r.ReadOnly) > 0
	}
	return false
}

// apply refuses b, whose source is really at path, or makes it read-only. A
// folder above a path in a list is as good as the path: it shows it.
func (r rules) apply(b *bind, path string) error {
	if !strings.HasPrefix(path, "/") {
		return refused(b, path, "it is in no place of this node")
	}
	touches := func(list []string) bool {
		return slices.ContainsFunc(list, func(p string) bool { return within(path, p) || within(p, path) })
	}
	switch {
	case touches(r.Deny):
		return refused(b, path, "the site does not let users mount it (container.user_mounts_deny)")
	case b.by == byUser && len(r.Allow) > 0 && !slices.ContainsFunc(r.Allow, func(p string) bool { return within(path, p) }):
		return refused(b, path, "the site lets users mount only what is below "+strings.Join(r.Allow, ", "))
	case touches(r.ReadOnly):
		b.readonly = true
	}
	return nil
}

func refused(b *bind, path, why string) error {
	where := ""
	if path != b.source {
		where = fmt.Sprintf(" (it is %s)", path)
	}
	return userError(fmt.Sprintf("mount %s%s: %s", b.source, where, why), "leave it out, or ask the administrator")
}

// within reports whether path is dir or below it.
func within(path, dir string) bool { return path == dir || below(path, strings.TrimSuffix(dir, "/")) }
