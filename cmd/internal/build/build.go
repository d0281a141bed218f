// Package build says which version of Berth a program is of.
package build

import "runtime/debug"

// Version is the version that the linker gave the program, else the one that
// the Go command stamped into it.
func Version(linked string) string {
	if linked != "" {
		return linked
	}
	info, ok := debug.ReadBuildInfo()
	if !ok || info.Main.Version == "" || info.Main.Version == "(devel)" {
		return "unknown"
	}
	return info.Main.Version
}
