// Command tool makes, serves and exports the tests' images; testdata/images/build
// calls it. Building from packages needs root; pushing and exporting do not.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/alecthomas/kong"

	"github.com/berth-hpc/berth/testdata/images"
)

type command struct {
	Cache   string        `help:"Folder of images and data (default: $BERTH_TEST_CACHE, else /var/cache/berth-test)." type:"path"`
	Timeout time.Duration `default:"15m" help:"Give up after this time."`

	Build  buildCommand  `cmd:"" help:"Make images that are missing or out of date."`
	Push   pushCommand   `cmd:"" help:"Make images and put them to a registry that speaks plain HTTP."`
	Export exportCommand `cmd:"" help:"Make an image and write it as docker save does."`
	Data   dataCommand   `cmd:"" help:"Make the demo's genome, index and reads; prints the cache folder."`
	List   listCommand   `cmd:"" help:"Print the names of all images."`
}

func main() {
	var c command
	k := kong.Parse(&c, kong.Name("images"), kong.Description("Container images for the tests and the demo."))
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	defer stop()
	ctx, cancel := context.WithTimeout(ctx, c.Timeout)
	defer cancel()
	if c.Cache == "" {
		c.Cache = images.CacheDir()
	}
	cache, err := filepath.Abs(c.Cache)
	k.FatalIfErrorf(err)
	k.BindTo(ctx, (*context.Context)(nil))
	k.FatalIfErrorf(k.Run(images.Builder{Cache: cache, Log: os.Stderr}))
}

type buildCommand struct {
	Names []string `arg:"" name:"name" help:"Images to make. Prints their OCI layouts."`
}

func (c buildCommand) Run(ctx context.Context, b images.Builder) error {
	if err := b.Build(ctx, c.Names...); err != nil {
		return err
	}
	for _, name := range c.Names {
		fmt.Println(images.LayoutDir(b.Cache, name))
	}
	return nil
}

type pushCommand struct {
	Registry string   `required:"" placeholder:"HOST:PORT" help:"Where to push."`
	Names    []string `arg:"" name:"name[:tag][=as]" help:"Images to push, under their own name or another. Prints HOST:PORT/NAME:TAG@DIGEST."`
}

func (c pushCommand) Run(ctx context.Context, b images.Builder) error {
	for _, ref := range c.Names {
		ref, as, renamed := strings.Cut(ref, "=")
		name, tag := images.SplitTag(ref)
		if !renamed {
			as = name + ":" + tag
		}
		img, err := b.Image(ctx, name)
		if err != nil {
			return err
		}
		digest, err := images.Push(ctx, c.Registry, as, img)
		if err != nil {
			return err
		}
		fmt.Printf("%s/%s@%s\n", c.Registry, as, digest)
	}
	return nil
}

type exportCommand struct {
	Name string `arg:"" name:"name[:tag]"`
	File string `arg:"" type:"path" help:"Archive to write."`
}

func (c exportCommand) Run(ctx context.Context, b images.Builder) error {
	name, tag := images.SplitTag(c.Name)
	img, err := b.Image(ctx, name)
	if err != nil {
		return err
	}
	return images.WriteDockerArchive(c.File, name+":"+tag, img)
}

type dataCommand struct{}

func (dataCommand) Run(ctx context.Context, b images.Builder) error {
	if err := b.Data(ctx); err != nil {
		return err
	}
	fmt.Println(b.Cache)
	return nil
}

type listCommand struct{}

func (listCommand) Run() error {
	for _, name := range images.Names() {
		fmt.Println(name)
	}
	return nil
}
