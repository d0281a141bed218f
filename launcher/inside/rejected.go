package inside

import (
	"regexp"
	"slices"
)

// mountFailure is how libcontainer words that a mount failed (mountToRootfs).
var mountFailure = regexp.MustCompile(`error mounting ".*" to rootfs at "([^"]*)": (.*)`)

// explainMount makes a failed mount of the user's an error of the user's: its
// target is below another mount, where libcontainer alone resolves it.
func explainMount(err error, binds []bind) error {
	m := mountFailure.FindStringSubmatch(err.Error())
	if m == nil || !slices.ContainsFunc(binds, func(b bind) bool { return b.by == byUser && b.target == m[1] }) {
		return err
	}
	return userError("mount target "+m[1]+": "+m[2], "choose another target: what is mounted above it leads elsewhere")
}
