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

// berthVersion is the version that the Go command stamped into the program:
// the tag it was built from, or one made of the commit's time and hash.
func berthVersion() string {
	info, ok := debug.ReadBuildInfo()
	if !ok || info.Main.Version == "" || info.Main.Version == "(devel)" {
		return "unknown"
	}
	return info.Main.Version
}
