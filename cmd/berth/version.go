package main

import (
	"fmt"
	"runtime"

	"github.com/berth-hpc/berth/cmd/internal/build"
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

func berthVersion() string { return build.Version(version) }
