package imagecache

import (
	"fmt"
	"runtime"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/berth-hpc/berth/fault"
)

// A Platform is what an image was built for. Variant is empty where it does
// not matter.
type Platform struct{ OS, Architecture, Variant string }

// HostPlatform returns the platform of this machine.
func HostPlatform() Platform { return Platform{OS: "linux", Architecture: runtime.GOARCH} }

// ParsePlatform reads OS/ARCH[/VARIANT], or ARCH alone; "" is this machine's.
func ParsePlatform(s string) (Platform, error) {
	if s == "" {
		return HostPlatform(), nil
	}
	parts := strings.Split(s, "/")
	if len(parts) == 1 {
		parts = []string{"linux", parts[0]}
	}
	if len(parts) > 3 || parts[0] == "" || parts[1] == "" {
		return Platform{}, &fault.Error{
			Op: "read platform", Arg: quote(s), Blame: fault.User,
			Remedy: "write it as OS/ARCH[/VARIANT], for example linux/arm64", Err: fmt.Errorf("not a platform"),
		}
	}
	p := Platform{OS: parts[0], Architecture: parts[1]}
	if len(parts) == 3 {
		p.Variant = parts[2]
	}
	return p, nil
}

// String returns OS/ARCH[/VARIANT].
func (p Platform) String() string {
	s := p.OS + "/" + p.Architecture
	if p.Variant != "" {
		s += "/" + p.Variant
	}
	return s
}

// matches reports whether an image for have runs on p. Where a variant is
// not named, any will do.
func (p Platform) matches(have *v1.Platform) bool {
	return have != nil && have.OS == p.OS && have.Architecture == p.Architecture &&
		(p.Variant == "" || have.Variant == "" || have.Variant == p.Variant)
}
