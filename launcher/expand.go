package launcher

import "strings"

// Expand puts values in the place of %u and the like in a path of the site's. It
// reports false where a value is not known, or would be read as more
// than a part of a path: names come from the node's user database, and by hand
// the job's number from the environment.
func Expand(item string, values map[byte]string) (string, bool) {
	var b strings.Builder
	for {
		before, after, found := strings.Cut(item, "%")
		b.WriteString(before)
		if !found {
			return b.String(), true
		}
		if after == "" {
			return "", false
		}
		value := values[after[0]]
		if value == "" || !fitsPath(after[0], value) {
			return "", false
		}
		b.WriteString(value)
		item = after[1:]
	}
}

func fitsPath(kind byte, value string) bool {
	if kind != 'h' && (strings.Contains(value, "/") || strings.HasPrefix(value, "..")) {
		return false
	}
	return !strings.ContainsAny(value, ":,") && !strings.ContainsFunc(value, func(r rune) bool { return r < ' ' || r == 0x7f })
}
