// Berth-create makes containers. It is kept small, because libcontainer
// copies and re-executes it for every container: no registry libraries, no
// command line parser. Users never call it; see `berth run`.
//
//	berth-create step     the helper of one Slurm step on a node (root)
//	berth-create job      makes the container of a PBS job on a node (root)
//	berth-create userns   makes a job's user namespaces (package nsenter)
//	berth-create inside   builds one container (the user, in N1)
//	berth-create init     libcontainer's init
package main

import (
	"context"
	"fmt"
	"io"
	"os"

	"github.com/berth-hpc/berth/launcher/inside"
	_ "github.com/berth-hpc/berth/launcher/nsenter"
	"github.com/opencontainers/runc/libcontainer"
	_ "github.com/opencontainers/runc/libcontainer/nsenter"
	"github.com/sirupsen/logrus"
)

func main() {
	mode := ""
	if len(os.Args) > 1 {
		mode = os.Args[1]
	}
	switch mode {
	case "init":
		libcontainer.Init()
	case "inside":
		logrus.SetOutput(io.Discard) // libcontainer's warnings are not for users
		exit(inside.Run(os.NewFile(3, "channel")))
	case "hook": // libcontainer starts it for each hook
		exit(inside.RunHook(os.Args[2:], os.Stdin))
	case "step":
		exit(runStep(context.Background()))
	case "job":
		exit(runJob(context.Background(), os.Stdin, os.Stdout))
	default:
		exit(fmt.Errorf("berth-create is started by Berth, not by hand (mode %q)", mode))
	}
}

func exit(err error) {
	if err == nil {
		os.Exit(0)
	}
	fmt.Fprintln(os.Stderr, "berth-create:", err)
	os.Exit(70)
}
