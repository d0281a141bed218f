package main

import (
	"fmt"
	"runtime"
	"runtime/debug"
)

// versionCmd prints what a bug report needs.
type versionCmd struct {
	JSON bool `name:"json" help:"Print it as JSON."`
}

// Run prints one line.
func (c *versionCmd) Run(s *session) error {
	if c.JSON {
		return s.printJSON(map[string]string{
			"version": berthVersion(), "go": runtime.Version(), "platform": runtime.GOOS + "/" + runtime.GOARCH,
		})
	}
	_, err := fmt.Fprintf(s.stdout, "berth version %s (%s, %s/%s)\n", berthVersion(), runtime.Version(), runtime.GOOS, runtime.GOARCH)
	return err
}

// version is set by the linker (-X main.version=…) and by nothing else.
var version string

// berthVersion is the version that the build was given, else the one that the
// Go command stamped into the program.
func berthVersion() string {
	if version != "" {
		return version
	}
	info, ok := debug.ReadBuildInfo()
	if !ok || info.Main.Version == "" || info.Main.Version == "(devel)" {
		return "unknown"
	}
	return info.Main.Version
}
