package main

import (
	"errors"
	"os/user"
	"strconv"
	"syscall"

	"github.com/berth-hpc/berth/fault"
)

// ociCmd is the command line of an OCI runtime, as runc has it, for Slurm's
// own --container (oci.conf) and other clients that run bundles as the user.
type ociCmd struct {
	Root string `placeholder:"DIR" help:"Where states are (default: /run/berth-oci/UID if the site made that folder, else the user's runtime folder)."`
	User string `placeholder:"NAME" help:"As root: be this user before anything else."`

	Log           string `hidden:""`
	LogFormat     string `hidden:""`
	Debug         bool   `hidden:""`
	Rootless      string `hidden:""`
	SystemdCgroup bool   `hidden:""`

	Create ociCreateCmd `cmd:"" help:"Make a container, whose process waits for its start."`
	Start  ociStartCmd  `cmd:"" help:"Let the process of a container run."`
	Run    ociRunCmd    `cmd:"" help:"Make a container and become its process."`
	State  ociStateCmd  `cmd:"" help:"Print what a container is doing."`
	Kill   ociKillCmd   `cmd:"" help:"Send a signal to a container."`
	Delete ociDeleteCmd `cmd:"" help:"Forget a container that has ended."`
	List   ociListCmd   `cmd:"" help:"List the ids of containers."`
}

// open becomes the user, if root is to, and opens their states. Root reads no
// state that a user wrote, and sends no signal that a user could not send.
func (c *ociCmd) open(s *session) (ociFolder, error) {
	if c.User != "" && s.user.uid == 0 {
		if err := dropTo(c.User); err != nil {
			return ociFolder{}, fault.Wrap("become", c.User, fault.Site, "give a user that this node knows", err)
		}
		s.user = currentAccount()
	}
	return openOCIFolder(s, c.Root)
}

// container reads what is known of a container; dir is "" where that is no name
// of one.
func (c *ociCmd) container(s *session, id string) (st *ociState, dir string, err error) {
	folder, err := c.open(s)
	if err != nil {
		return nil, "", err
	}
	return folder.read(id)
}

func dropTo(name string) error {
	u, err := user.Lookup(name)
	if err != nil {
		return err
	}
	texts, err := u.GroupIds()
	if err != nil {
		return err
	}
	ids := make([]int, len(texts)+2)
	for i, text := range append([]string{u.Uid, u.Gid}, texts...) {
		if ids[i], err = strconv.Atoi(text); err != nil {
			return err
		}
	}
	if ids[0] == 0 {
		return errors.New("that is root again")
	}
	return errors.Join(syscall.Setgroups(ids[2:]), syscall.Setresgid(ids[1], ids[1], ids[1]), syscall.Setresuid(ids[0], ids[0], ids[0]))
}
