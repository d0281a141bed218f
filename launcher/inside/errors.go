package inside

import (
	"errors"

	"github.com/berth-hpc/berth/launcher"
)

// userError is a failure that the user can fix by changing what they typed.
func userError(text, remedy string) error {
	return &launcher.Failure{Text: text, Remedy: remedy, Blame: "user"}
}

// siteError is a failure of the node or its kernel, with what the admin can do.
func siteError(text, remedy string) error {
	return &launcher.Failure{Text: text, Remedy: remedy, Blame: "site"}
}

// failure turns any error into what travels to the helper.
func failure(err error) *launcher.Failure {
	var f *launcher.Failure
	if errors.As(err, &f) {
		return f
	}
	return &launcher.Failure{
		Text:   "create container: " + err.Error(),
		Remedy: "run `berth doctor` on this node; if it finds nothing, report this as a bug",
		Blame:  "bug",
	}
}
