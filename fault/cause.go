package fault

import (
	"errors"
	"slices"
)

// What failures are counted by. Others go by whose they are: Blame's words.
const (
	UnknownImage = "unknown_image" // the registry knows none of that name
	LoginRefused = "login"         // nobody gets in without a login, or with this one
	Registry     = "registry"      // it, or the network, does not answer as it should
	Disk         = "disk"          // full, read-only, broken
	PolicyDenied = "policy"        // the site's rules
	Deadline     = "deadline"      // it took too long
	Container    = "container"     // the image was there, the container could not be made
)

// Causes returns all that CauseOf may say.
func Causes() []string {
	return []string{
		UnknownImage, LoginRefused, Registry, Disk, PolicyDenied, Deadline, Container,
		Bug.String(), User.String(), Site.String(),
	}
}

// CauseOf returns the word by which err is counted: that of the innermost Error
// which has one, which is nearest to what happened, else whose fault it is.
func CauseOf(err error) string {
	cause := Of(err).String()
	for f := (*Error)(nil); errors.As(err, &f); err = f.Err {
		if f.Cause != "" {
			cause = f.Cause
		}
	}
	return cause
}

// knownCause is cause where that is one of ours, else "": what comes from a
// less trusted process must not become any label.
func knownCause(cause string) string {
	if slices.Contains(Causes(), cause) {
		return cause
	}
	return ""
}
