package config

import (
	"errors"
	"fmt"
	"path"
	"strings"
)

// mountList brings each element into the form SRC:DST or SRC:DST:FLAGS, in
// place. The launcher understands that form, which is Slurm's.
func mountList(value any) error {
	for i, item := range value.([]string) {
		full, err := fullMount(item)
		if err != nil {
			return fmt.Errorf("%q: %w", item, err)
		}
		value.([]string)[i] = full
	}
	return nil
}

func fullMount(item string) (string, error) {
	if strings.Contains(item, ",") {
		return "", errors.New("a comma; write one mount per element")
	}
	if err := checkPercent(item); err != nil {
		return "", err
	}
	f := strings.Split(item, ":")
	switch {
	case len(f) == 1:
		f = []string{f[0], f[0]}
	case len(f) == 2 && !strings.HasPrefix(f[1], "/"):
		f = []string{f[0], f[0], f[1]}
	case len(f) > 3:
		return "", errors.New("too many colons")
	}
	if f[0] != "tmpfs" && !absoluteOrHome(f[0]) {
		return "", errors.New("the source must begin with / or %h")
	}
	if !absoluteOrHome(f[1]) {
		return "", errors.New("the target must begin with / or %h")
	}
	return strings.Join(f, ":"), nil
}

// checkPercent knows what the launcher replaces in paths (launcher/inside).
func checkPercent(item string) error {
	for rest := item; ; rest = rest[1:] {
		_, after, found := strings.Cut(rest, "%")
		if !found {
			return nil
		}
		if after == "" || !strings.Contains("%uUgGhjH", after[:1]) {
			return errors.New("after % comes one of u, U, g, G, h, j, H and %")
		}
		rest = after
	}
}

// pathList cleans absolute paths, in place.
func pathList(value any) error {
	for i, item := range value.([]string) {
		if !path.IsAbs(item) {
			return fmt.Errorf("%q is not an absolute path", item)
		}
		value.([]string)[i] = path.Clean(item)
	}
	return nil
}

func absoluteOrHome(p string) bool {
	return path.IsAbs(p) || p == "%h" || strings.HasPrefix(p, "%h/")
}

func mirrorList(value any) error {
	for _, m := range value.([]string) {
		if m == "" || strings.Contains(m, "://") || strings.ContainsAny(m, " @") || strings.HasPrefix(m, "/") {
			return fmt.Errorf("%q is not HOST or HOST/PREFIX", m)
		}
	}
	return nil
}

func noProxyList(value any) error {
	for _, h := range value.([]string) {
		if h == "" || strings.Contains(h, "://") || strings.ContainsAny(h, " @,") {
			return fmt.Errorf("%q is no name, .suffix, address or network", h)
		}
	}
	return nil
}

func variableList(value any) error {
	for _, v := range value.([]string) {
		if name, _, ok := strings.Cut(v, "="); !ok || name == "" || strings.Contains(v, "\x00") {
			return fmt.Errorf("%q is not NAME=VALUE", v)
		}
	}
	return nil
}

func variableNames(value any) error {
	for _, v := range value.([]string) {
		if name := strings.TrimSuffix(v, "*"); name == "" || strings.ContainsAny(name, "=*\x00") {
			return fmt.Errorf("%q is not NAME or PREFIX*", v)
		}
	}
	return nil
}
