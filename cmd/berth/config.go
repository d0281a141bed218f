package main

import (
	"fmt"
	"text/tabwriter"

	"github.com/berth-hpc/berth/cmd/internal/config"
)

// configCmd shows and explains settings.
type configCmd struct {
	Show     configShowCmd     `cmd:"" help:"Print every setting, its value, and what set it."`
	Template configTemplateCmd `cmd:"" help:"Print a berth.toml that explains every setting."`
}

// configShowCmd prints the settings that hold for the caller.
type configShowCmd struct {
	JSON bool `name:"json" help:"Print them as JSON."`
}

// Run prints one line per setting.
func (c *configShowCmd) Run(s *session) error {
	cfg, err := s.settings()
	if err != nil {
		return err
	}
	if c.JSON {
		return s.printJSON(cfg.Values())
	}
	t := tabwriter.NewWriter(s.stdout, 0, 0, 2, ' ', 0)
	for _, v := range cfg.Values() {
		fmt.Fprintf(t, "%s\t= %s\t# %s\n", v.Key, v, v.Origin)
	}
	return t.Flush()
}

// configTemplateCmd prints the documentation of all settings.
type configTemplateCmd struct{}

// Run prints it as a file that can be installed and edited.
func (*configTemplateCmd) Run(s *session) error {
	_, err := fmt.Fprint(s.stdout, config.Template())
	return err
}
