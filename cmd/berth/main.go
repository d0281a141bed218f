// Berth runs container images on clusters and anywhere else: no root, no
// daemon. This is its command line; the work is done by the packages
// imagecache (images), launcher (containers) and prolog (nodes).
//
// One file per command. Only this package reads the process's environment,
// and only main ends the process.
package main

import (
	"context"
	"os"

	"github.com/berth-hpc/berth/cmd/internal/config"
)

func main() {
	os.Exit(run(context.Background(), process{
		args: os.Args[1:], stdin: os.Stdin, stdout: os.Stdout, stderr: os.Stderr,
		lookupEnv: os.LookupEnv, environ: os.Environ, configDir: config.Dir,
	}))
}
