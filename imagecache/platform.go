package imagecache

import (
	"fmt"
	"runtime"
	"slices"
	"strconv"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/berth-hpc/berth/fault"
)

// A Platform is what an image was built for. Variant is empty where it does
// not matter.
type Platform struct{ OS, Architecture, Variant string }

// HostPlatform returns the platform of this machine.
func HostPlatform() Platform { return Platform{OS: "linux", Architecture: runtime.GOARCH} }

// ParsePlatform reads OS/ARCH[/VARIANT], ARCH alone, or ARCH/VARIANT; "" is
// this machine's. It knows the names that other tools have for architectures:
// x86_64 is amd64, aarch64 and arm64/v8 are arm64, armhf is arm/v7.
func ParsePlatform(s string) (Platform, error) {
	if s == "" {
		return HostPlatform(), nil
	}
	parts := strings.Split(strings.ToLower(s), "/")
	if isArchitecture(parts[0]) {
		parts = append([]string{"linux"}, parts...)
	}
	if len(parts) == 1 || len(parts) > 3 || slices.Contains(parts, "") {
		return Platform{}, &fault.Error{
			Op: "read platform", Arg: quote(s), Blame: fault.User,
			Remedy: "write it as OS/ARCH[/VARIANT], for example linux/arm64", Err: fmt.Errorf("not a platform"),
		}
	}
	p := Platform{OS: parts[0], Architecture: parts[1]}
	if len(parts) == 3 {
		p.Variant = parts[2]
	}
	return p.normal(), nil
}

// architectures are those that images are built for, by all their names, with
// what Go and the OCI specification call them.
var architectures = map[string]Platform{
	"amd64": {Architecture: "amd64"}, "x86_64": {Architecture: "amd64"}, "x86-64": {Architecture: "amd64"},
	"arm64": {Architecture: "arm64"}, "aarch64": {Architecture: "arm64"},
	"arm": {Architecture: "arm"}, "armhf": {Architecture: "arm", Variant: "v7"}, "armel": {Architecture: "arm", Variant: "v6"},
	"386": {Architecture: "386"}, "i386": {Architecture: "386"}, "i686": {Architecture: "386"},
	"ppc64le": {Architecture: "ppc64le"}, "s390x": {Architecture: "s390x"}, "riscv64": {Architecture: "riscv64"},
	"loong64": {Architecture: "loong64"}, "mips64le": {Architecture: "mips64le"}, "ppc64": {Architecture: "ppc64"},
}

func isArchitecture(s string) bool {
	_, ok := architectures[s]
	return ok
}

// normal returns p by the names of the OCI specification, without a variant
// that says nothing.
func (p Platform) normal() Platform {
	if known, ok := architectures[p.Architecture]; ok {
		p.Architecture = known.Architecture
		if p.Variant == "" {
			p.Variant = known.Variant
		}
	}
	if p.Architecture == "arm64" && p.Variant == "v8" || p.Architecture == "amd64" && p.Variant == "v1" {
		p.Variant = ""
	}
	return p
}

func platformOf(p *v1.Platform) Platform {
	return Platform{OS: p.OS, Architecture: p.Architecture, Variant: p.Variant}.normal()
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
// not named, any will do; one that is runs what is built for older ones.
func (p Platform) matches(have *v1.Platform) bool {
	if have == nil {
		return false
	}
	h := platformOf(have)
	if h.OS != p.OS || h.Architecture != p.Architecture {
		return false
	}
	return p.Variant == "" || h.Variant == "" || h.Variant == p.Variant ||
		level(h.Variant) > 0 && level(h.Variant) <= level(p.Variant)
}

// level is the number in a variant like v7, 0 if there is none.
func level(variant string) int {
	n, err := strconv.Atoi(strings.TrimPrefix(variant, "v"))
	if err != nil {
		return 0
	}
	return n
}

// better says which of two images that both match p suits it more, as
// slices.SortFunc wants it: the highest variant if p names one, else the
// lowest, which runs everywhere.
func (p Platform) better(a, b *v1.Platform) int {
	order := level(platformOf(a).Variant) - level(platformOf(b).Variant)
	if p.Variant != "" {
		return -order
	}
	return order
}
