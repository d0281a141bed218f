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
	end, folder := files[0], files[1]
	err := c.Users.tidy(ctx, c.Exe, c.Request.User, "janitor", name, folder, end) // it goes on in the background
	return fault.Wrap("start the janitor of the container's folder", "", fault.Bug, "", err)
}

// startKeeper starts `berth-create keeper`, which holds the lock of a kept
// container until that has ended: a process of the user's again.
func (c *Creation) startKeeper(ctx context.Context, files []*os.File) error {
	defer closeAll(files)
	if len(files) != 2 {
		return fmt.Errorf("the container's builder asked for a keeper with %d descriptors", len(files))
	}
	end, lock := files[0], files[1]
	err := c.Users.tidy(ctx, c.Exe, c.Request.User, "keeper", "-", lock, end)
	return fault.Wrap("start the keeper of the container's lock", "", fault.Bug, "", err)
}

// GiveBack gives all below dir that belongs to further ids of u's to u, who
// could not even remove it otherwise. It runs as u, with namespaces made for
// u.SubIDs; exe is berth-create.
func (ns *UserNamespaces) GiveBack(ctx context.Context, exe string, u User, dir string) error {
	folder, err := os.Open(filepath.Dir(dir))
	if err != nil {
		return err
	}
	defer folder.Close()
	return ns.tidy(ctx, exe, u, "giveback", filepath.Base(dir), folder)
}

func (ns *UserNamespaces) tidy(ctx context.Context, exe string, u User, mode, name string, files ...*os.File) error {
	var output bytes.Buffer
	cmd := exec.CommandContext(ctx, exe, mode, name)
	cmd.Args[0] = "berth-create"
	cmd.Env = fixedEnvironment()
	cmd.Dir = "/"
	cmd.Stderr = &output
	cmd.ExtraFiles = append([]*os.File{ns.Outer}, files...)
	if os.Geteuid() != u.UID {
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: credential(u)}
	}
	if err := cmd.Run(); err != nil {
		return withOutput(err, output.Bytes())
	}
	return nil
}
