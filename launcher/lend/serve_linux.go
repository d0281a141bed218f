package lend

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"
	"unsafe"

	"github.com/berth-hpc/berth/fault"
	"github.com/berth-hpc/berth/launcher"
	"github.com/berth-hpc/berth/launcher/devices"
	"github.com/berth-hpc/berth/launcher/wire"
	"github.com/sirupsen/logrus"
	"golang.org/x/sys/unix"
)

// A Peer is who asks, by the kernel's word.
type Peer struct {
	User launcher.User
	PID  int
}

// An Image is an image of the node's that is mounted and leased for a peer.
type Image struct {
	Mount  *os.File // a detached copy of its mount
	Config *os.File
}

// A Node lends its images.
type Node interface {
	// Lend returns an image that the node has and that the peer may use. Its
	// error is a fault in words for the peer.
	Lend(ctx context.Context, p Peer, image, digest string) (*Image, error)
}

// Settings are the site's choices.
type Settings struct {
	Exe      string // berth-create, which becomes the user
	RunDir   string
	Site     launcher.Site
	MountDir bool
	IDMap    bool // as in package step
	Devices  devices.Wish
}

const (
	// requestLimit bounds the wait for a request, serveLimit all of it.
	requestLimit = 5 * time.Second
	serveLimit   = 20 * time.Second
	// perUser is how many requests of one user are served at once.
	perUser = 4
)

// Serve answers the one request of a connection, as root.
func Serve(ctx context.Context, log logrus.FieldLogger, conn *os.File, node Node, set Settings) error {
	ctx, cancel := context.WithTimeout(ctx, serveLimit)
	defer cancel()
	peer, err := peerOf(conn)
	if err != nil {
		return err
	}
	log = log.WithFields(logrus.Fields{"uid": peer.User.UID, "pid": peer.PID})
	loan, err := answer(ctx, conn, peer, node, set)
	if err != nil {
		log.WithError(err).Info("not lent")
		m := fault.NewMessage(err)
		return reply(conn, wire.Message{
			{Key: "error", Value: m.Text}, {Key: "remedy", Value: m.Remedy}, {Key: "blame", Value: m.Blame},
		})
	}
	defer loan.Close()
	log.Info("lent")
	return reply(conn, wire.Message{{Key: "ok", Value: "1"}},
		loan.Users.Outer, loan.Users.Inner, loan.Container.Mount, loan.Container.Result, loan.Config)
}

func reply(conn *os.File, m wire.Message, files ...*os.File) error {
	data, err := m.Encode()
	if err != nil {
		return err
	}
	return launcher.SendPacket(conn, data, files...)
}

// peerOf is who connected. Root needs no socket.
func peerOf(conn *os.File) (p Peer, err error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return p, err
	}
	cerr := raw.Control(func(fd uintptr) {
		var cred *unix.Ucred
		if cred, err = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED); err != nil {
			return
		}
		p = Peer{User: launcher.User{UID: int(cred.Uid), GID: int(cred.Gid)}, PID: int(cred.Pid)}
		p.User.Groups, err = peerGroups(int(fd))
	})
	if err = errors.Join(cerr, err); err == nil && (p.User.UID == 0 || p.PID == 0) {
		err = fmt.Errorf("peer with uid %d and pid %d", p.User.UID, p.PID)
	}
	return p, err
}

// peerGroups is SO_PEERGROUPS of socket(7), Linux 4.13.
func peerGroups(fd int) ([]int, error) {
	gids := make([]uint32, 1<<16) // NGROUPS_MAX
	size := uint32(len(gids) * 4)
	_, _, errno := unix.Syscall6(unix.SYS_GETSOCKOPT, uintptr(fd), unix.SOL_SOCKET, unix.SO_PEERGROUPS,
		uintptr(unsafe.Pointer(&gids[0])), uintptr(unsafe.Pointer(&size)), 0)
	if errno != 0 {
		return nil, os.NewSyscallError("getsockopt(SO_PEERGROUPS)", errno)
	}
	groups := make([]int, size/4)
	for i := range groups {
		groups[i] = int(gids[i])
	}
	return groups, nil
}

func answer(ctx context.Context, conn *os.File, peer Peer, node Node, set Settings) (*Loan, error) {
	slot, err := takeSlot(set.RunDir, peer.User.UID)
	if err != nil {
		return nil, err
	}
	defer slot.Close()
	req, view, err := receive(conn)
	if err != nil {
		return nil, fault.Wrap("read the request", "", fault.User, "use the berth of this node's version", err)
	}
	defer view.Close()
	image, err := node.Lend(ctx, peer, req.Image, req.Digest)
	if err != nil {
		return nil, err
	}
	defer image.Mount.Close()
	users, err := launcher.NewUserNamespaces(ctx, set.Exe, peer.User)
	if err != nil {
		image.Config.Close()
		return nil, fault.Wrap("create user namespaces", "", fault.Site, "run as root on this node: berth doctor", err)
	}
	loan := &Loan{Users: users, Config: image.Config}
	if loan.Container, err = create(ctx, peer, req, image, users, view, set); err != nil {
		users.Close()
		image.Config.Close()
		return nil, err
	}
	return loan, nil
}

// create is what the helper of a step does for a job.
func create(ctx context.Context, peer Peer, req Request, image *Image, users *launcher.UserNamespaces, view *os.File, set Settings) (*launcher.Container, error) {
	if set.IDMap {
		if _, err := launcher.IDMap(image.Mount, users.Outer); err != nil {
			return nil, err
		}
	}
	r := req.Container
	r.User, r.Site, r.MountDir, r.Devices = peer.User, set.Site, set.MountDir, set.Devices
	c := &launcher.Creation{
		Exe: set.Exe, Users: users, Request: &r, Config: image.Config,
		Stage: &launcher.Stage{View: view, Image: image.Mount, Dir: set.RunDir},
	}
	return c.Create(ctx)
}

// receive takes the one message that may come: with a descriptor of a mount
// namespace, which Stage checks.
func receive(conn *os.File) (Request, *os.File, error) {
	if err := conn.SetReadDeadline(time.Now().Add(requestLimit)); err != nil {
		return Request{}, nil, err
	}
	p, err := launcher.ReceivePacket(conn, wire.MaxMessage)
	if err != nil {
		return Request{}, nil, err
	}
	if len(p.Files) != 1 {
		closeFiles(p.Files)
		return Request{}, nil, fmt.Errorf("it has %d descriptors", len(p.Files))
	}
	m, err := wire.Decode(p.Data)
	var req Request
	if err == nil {
		req, err = decode(m)
	}
	if err != nil {
		closeFiles(p.Files)
		return Request{}, nil, err
	}
	return req, p.Files[0], nil
}

// takeSlot is one of a user's places, free again when its file is closed: by
// this process's end at the latest.
func takeSlot(runDir string, uid int) (*os.File, error) {
	dir := filepath.Join(runDir, "requests")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	for i := range perUser {
		f, err := os.OpenFile(filepath.Join(dir, fmt.Sprintf("%d.%d", uid, i)), os.O_RDWR|os.O_CREATE, 0o600)
		if err != nil {
			return nil, err
		}
		if unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB) == nil {
			return f, nil
		}
		f.Close()
	}
	return nil, &fault.Error{
		Op: "use the node's store", Blame: fault.User, Err: fmt.Errorf("%d requests of yours are being served", perUser),
		Remedy: "try again when those are done",
	}
}
