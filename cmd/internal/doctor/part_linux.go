package doctor

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/user"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// gate names the check that the start of a part is.
func gate(part Part) string {
	for _, c := range checks() {
		if c.part == part && c.run == nil {
			return c.name
		}
	}
	return ""
}

// startPart starts Berth again as a part and returns what it found, with the
// part's start as the first finding.
func startPart(ctx context.Context, n *Node, part Part) []Finding {
	ctx, cancel := context.WithTimeout(ctx, partLimit)
	defer cancel()
	attr, err := attributes(n, part)
	var unusable error
	if err != nil && part == User { // somebody has to try what users may do
		unusable = err
		attr, err = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}, nil
	}
	var found []Finding
	if err == nil {
		found, err = spawn(ctx, n, part, attr)
	}
	start := Finding{Status: OK, Detail: started(n, part)}
	if err = errors.Join(unusable, err); err != nil {
		start = notStarted(n, part, err)
	}
	start.Check = gate(part)
	return append([]Finding{start}, found...)
}

// nobody is the kernel's overflow uid, which every system keeps for nobody.
const nobody = 65534

// spawn runs `berth doctor --part PART` with the node on its standard input.
func spawn(ctx context.Context, n *Node, part Part, attr *syscall.SysProcAttr) ([]Finding, error) {
	input, err := json.Marshal(n)
	if err != nil {
		return nil, err
	}
	var stdout, stderr bytes.Buffer
	cmd := command(ctx, n.Command, part)
	cmd.SysProcAttr = attr
	cmd.Stdin, cmd.Stdout, cmd.Stderr = bytes.NewReader(input), &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return nil, errors.Join(err, textError(stderr.String()), ctx.Err())
	}
	var found []Finding
	return found, json.Unmarshal(stdout.Bytes(), &found)
}

func command(ctx context.Context, berth []string, part Part) *exec.Cmd {
	args := append(berth[1:len(berth):len(berth)], "doctor", "--part", string(part))
	cmd := exec.CommandContext(ctx, berth[0], args...)
	cmd.Env, cmd.Dir = []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "LANG=C"}, "/"
	cmd.WaitDelay = time.Second
	return cmd
}

func textError(s string) error {
	if s = strings.Join(strings.Fields(s), " "); s != "" {
		return errors.New(s)
	}
	return nil
}

// attributes are the namespaces and the user of a part.
func attributes(n *Node, part Part) (*syscall.SysProcAttr, error) {
	switch part {
	case User:
		uid, gid, err := account(n.Account)
		return &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: gid}}, err
	case Inside:
		return &syscall.SysProcAttr{
			Cloneflags:  unix.CLONE_NEWUSER | unix.CLONE_NEWNS,
			UidMappings: []syscall.SysProcIDMap{{ContainerID: os.Getuid(), HostID: os.Getuid(), Size: 1}},
			GidMappings: []syscall.SysProcIDMap{{ContainerID: os.Getgid(), HostID: os.Getgid(), Size: 1}},
			// What the container's builder has as root of the namespace.
			AmbientCaps: []uintptr{unix.CAP_SYS_ADMIN, unix.CAP_DAC_OVERRIDE, unix.CAP_FOWNER, unix.CAP_CHOWN},
		}, nil
	case Mounts:
		return &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNS}, nil
	}
	return nil, fmt.Errorf("no part %q", part)
}

// account looks up the node's account, as "name" or "UID:GID".
func account(name string) (uid, gid uint32, err error) {
	u, g, numbers := strings.Cut(name, ":")
	if !numbers {
		a, err := user.Lookup(name)
		if err != nil {
			return 0, 0, err
		}
		u, g = a.Uid, a.Gid
	}
	id, err1 := strconv.ParseUint(u, 10, 32)
	group, err2 := strconv.ParseUint(g, 10, 32)
	if id == 0 || group == 0 {
		return 0, 0, errors.Join(err1, err2, fmt.Errorf("account %q is root's", name))
	}
	return uint32(id), uint32(group), errors.Join(err1, err2)
}

func started(n *Node, part Part) string {
	switch part {
	case User:
		return n.Account + " exists and can run Berth"
	case Inside:
		return "users can make them"
	}
	return "root can make a mount namespace for them"
}

// notStarted explains why a part could not be.
func notStarted(n *Node, part Part, err error) Finding {
	switch part {
	case User:
		return accountFinding(n, err)
	case Inside:
		r := ForbiddenNamespaces()
		return Finding{Status: Fail, Detail: "an ordinary user can't make one: " + r.Cause + " (" + oneLine(err) + ")", Remedy: r.Remedy}
	}
	return Finding{
		Status: Fail, Detail: "no mount namespace: " + oneLine(err),
		Remedy: "run Berth's root side outside of containers: it needs CAP_SYS_ADMIN",
	}
}

func accountFinding(n *Node, err error) Finding {
	var unknown user.UnknownUserError
	if errors.As(err, &unknown) {
		status := Fail
		if !managed(n) {
			status = Warn
		}
		return Finding{
			Status: status, Detail: "no account " + n.Account + ": images can't be pulled on this node",
			Remedy: "useradd --system --no-create-home " + n.Account + ", or set node.account",
		}
	}
	return Finding{
		Status: Fail, Detail: fmt.Sprintf("account %s can't run %s: %s", n.Account, n.Command[0], oneLine(err)),
		Remedy: "give the account an id other than root's, and let everyone read and execute " + n.Command[0],
	}
}

// managed says whether this looks like a node of a cluster: elsewhere users
// pull for themselves.
func managed(n *Node) bool {
	slurm, err := readSlurm(n)
	_, storeErr := os.Stat(n.StoreDir)
	return slurm != nil || err != nil || storeErr == nil
}

// ReadNode is the other end of spawn.
func ReadNode(r io.Reader) (*Node, error) {
	n := &Node{}
	return n, json.NewDecoder(r).Decode(n)
}

// oneLine is an error's text for a line of the report.
func oneLine(err error) string { return strings.Join(strings.Fields(err.Error()), " ") }
