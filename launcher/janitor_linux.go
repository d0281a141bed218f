package launcher

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"

	"github.com/berth-hpc/berth/fault"
)

// startJanitor starts `berth-create janitor`, which removes a container's
// folder on scratch when the container has ended: files are what tells the end
// and the folder above. All three are the word of the user's process, so the
// janitor runs as the user, in N1, where the ids are that the container's files
// may have; it holds no mount namespace of the container's.
func (c *Creation) startJanitor(ctx context.Context, name string, files []*os.File) error {
	defer closeAll(files)
	if len(files) != 2 || name != filepath.Base(name) || name == "." || name == ".." {
		return fmt.Errorf("the container's builder asked for a janitor with %d descriptors", len(files))
	}
	var output bytes.Buffer
	cmd := exec.CommandContext(ctx, c.Exe, "janitor", name)
	cmd.Args[0] = "berth-create"
	cmd.Env = fixedEnvironment()
	cmd.Dir = "/"
	cmd.Stderr = &output
	cmd.ExtraFiles = append([]*os.File{c.Users.Outer}, files...)
	if user := c.Request.User; os.Geteuid() != user.UID {
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: credential(user)}
	}
	if err := cmd.Run(); err != nil { // it goes on in the background
		return fault.Wrap("start the janitor of the container's folder", "", fault.Bug, "", withOutput(err, output.Bytes()))
	}
	return nil
}
