package main

import (
	"context"
	"os"

	"github.com/berth-hpc/berth/prolog"
	"golang.org/x/sys/unix"
)

// nodeConvertCmd converts what a fetcher sends, shut in. It begins as root.
type nodeConvertCmd struct {
	Work string `arg:"" help:"The folder for the result."`
}

// Run speaks to the fetcher on descriptor 3.
func (c *nodeConvertCmd) Run(ctx context.Context, s *session) error {
	cfg, settings, err := s.siteSettings()
	if err != nil {
		return err
	}
	if err := inherited(unix.S_IFSOCK); err != nil {
		return err
	}
	converter := fetchOptions(settings, anonymous(settings)).Converter
	return nodeFault("convert", prolog.Convert(ctx, cfg, converter, os.NewFile(3, "fetcher"), c.Work))
}

// nodeCheckCmd looks at the structure of a converted image, shut in. It begins
// as root.
type nodeCheckCmd struct{}

// Run reads the file from descriptor 3.
func (*nodeCheckCmd) Run(s *session) error {
	cfg, err := s.site()
	if err != nil {
		return err
	}
	if err := inherited(unix.S_IFREG); err != nil {
		return err
	}
	return nodeFault("check", prolog.Check(cfg, os.NewFile(3, "image"), s.stdout))
}
