package inside

import (
	"errors"

	"github.com/berth-hpc/berth/fault"
)

// userError is a failure that the user can fix by changing what they typed.
func userError(text, remedy string) error {
	return &fault.Error{Op: text, Remedy: remedy, Blame: fault.User}
}

// siteError is a failure of the node or its kernel, with what the admin can do.
func siteError(text, remedy string) error {
	return &fault.Error{Op: text, Remedy: remedy, Blame: fault.Site}
}

// failure makes any error fit to travel to the helper.
func failure(err error) *fault.Message {
	var f *fault.Error
	if !errors.As(err, &f) {
		err = fault.Wrap("create container", "", fault.Bug,
			"look into the node's log; if it says no more, report this as a bug", err)
	}
	return fault.NewMessage(err)
}
