package launcher

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"syscall"

	"github.com/berth-hpc/berth/fault"
)

// serveSquashfs starts squashfuse_ll for image, whose squashfs begins at offset,
// on the FUSE descriptor dev,
// which `berth-create inside` has mounted. The server runs as the user when root
// calls this and as the caller otherwise; it leaves the caller's session,
// holds no namespace of the container and ends by itself when the container
// does. It needs squashfuse_ll with libfuse 3.3 or later (the mount point
// /dev/fd/N): every distribution since 2019.
func (c *Creation) serveSquashfs(ctx context.Context, image *os.File, offset int64, dev *os.File) error {
	program, err := exec.LookPath("squashfuse_ll")
	if err != nil {
		return fault.Wrap("mount the image", "", fault.Site, "install the squashfuse package on "+hostname(), err)
	}
	var output bytes.Buffer
	cmd := exec.CommandContext(ctx, program, "-o", fmt.Sprintf("subtype=berth,offset=%d", offset), "/proc/self/fd/3", "/dev/fd/4")
	cmd.Env = fixedEnvironment()
	cmd.Dir = "/"
	cmd.Stderr = &output
	cmd.ExtraFiles = []*os.File{image, dev}
	if c.Hold != nil {
		cmd.ExtraFiles = append(cmd.ExtraFiles, c.Hold)
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if user := c.Request.User; os.Geteuid() != user.UID {
		cmd.SysProcAttr.Credential = credential(user)
	}
	if err := cmd.Run(); err != nil { // it forks into the background once it serves
		return fmt.Errorf("mount the image: squashfuse_ll: %w", withOutput(err, output.Bytes()))
	}
	return nil
}

func hostname() string {
	name, err := os.Hostname()
	if err != nil {
		return "this node"
	}
	return name
}
