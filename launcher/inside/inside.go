// Package inside builds one container as the user, inside the job's user
// namespace N1. It is the program `berth-create inside`: package nsenter has
// joined N1 and taken a new mount namespace before it starts, which is what
// locks nosuid, nodev and read-only on every mount that root made.
//
// The steps are files of this package in the order the data takes:
//
//	kept_linux.go name         -> folder of changes, or a container that runs
//	mounts.go     options      -> binds (mountspec.go reads them)
//	source_linux.go binds      -> opened sources that the site allows (rules.go)
//	volumes_linux.go image's volumes -> binds
//	rootfs.go     image, binds -> root file system with every mount point in place
//	container.go  overlay      -> mount namespace (libcontainer)
//	result.go     image config -> what tasks apply after joining
//	entrypoint.go image config -> what runs the image's entrypoint before tasks
//	marker.go     result, label -> what further tasks find in the container
//
// Nothing here is privileged: a user who takes over this process gains what
// `unshare -Ur` gives them anyway.
package inside

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/berth-hpc/berth/launcher"
)

// Run serves one request on the channel (a SOCK_SEQPACKET socket) and
// returns when the container's namespaces have been handed over. Failures go
// to the other side; the error returned is for the exit status alone.
func Run(channel *os.File) error {
	req, files, err := launcher.ReceiveRequest(channel)
	if err != nil {
		return err
	}
	defer files.Close()
	switch {
	case req.Kept != nil && req.Kept.Look:
		err = look(channel, req)
	case req.Kept != nil && req.Kept.Forget:
		return forget(req)
	default:
		err = build(channel, req, files)
	}
	if errors.Is(err, launcher.ErrKeptInUse) {
		return errors.Join(err, launcher.SendReply(channel, &launcher.Reply{InUse: true}))
	}
	if err != nil {
		return errors.Join(err, launcher.SendReply(channel, &launcher.Reply{Failure: failure(err)}))
	}
	return nil
}

func build(channel *os.File, req *launcher.Request, files *launcher.Attached) error {
	r, err := newRootfs(req)
	if err != nil {
		return err
	}
	if err := r.build(channel, req, files); err != nil {
		return errors.Join(err, r.dropKept())
	}
	return nil
}

func (r *rootfs) build(channel *os.File, req *launcher.Request, files *launcher.Attached) error {
	image, err := readConfig(files.Config)
	if err != nil {
		return err
	}
	if err := r.attachImage(channel, req); err != nil {
		return err
	}
	if req.Image.Kind == launcher.RootFile {
		image.fromTree(r)
	}
	catalogue, err := readCatalogue(files.Catalogue)
	if err != nil {
		return err
	}
	realName := lookUp(&req.User)
	if req.Kept != nil {
		if r.kept, err = keep(req); err != nil {
			r.kept = nil
			return err
		}
		r.changes = r.kept.Dir()
	}
	if err := r.chooseScratch(req); err != nil {
		return err
	}
	if err := r.separate(req); err != nil {
		return err
	}
	devs, err := chooseDevices(req, catalogue, image)
	if err != nil {
		return err
	}
	hooks := chooseHooks(req, catalogue.Hooks, devs, image)
	binds, err := prepare(req, realName, r, image, devs)
	if err := errors.Join(err, r.handScratch(channel), r.handKeeper(channel)); err != nil {
		return err
	}
	hooks.notes = append(hooks.notes, r.checkMPI(req, image)...)
	c, err := start(r, binds, req, hooks)
	if err != nil {
		return err
	}
	defer c.end()
	return handOver(channel, req, r, image, devs, c, launcher.Made{Mounts: r.describe(binds), Devices: devs.names})
}

// describe writes binds down for the user's record.
func (r *rootfs) describe(binds []bind) (lines []string) {
	for _, b := range binds {
		source := cmp.Or(b.named, b.source)
		switch {
		case b.tmpfs:
			source = "tmpfs"
		case strings.HasPrefix(source, r.work+"/"):
			source = "berth" // a file that was made for the container
		}
		line := source + ":" + b.target
		if b.readonly {
			line += ":ro"
		}
		lines = append(lines, line)
	}
	return lines
}

// prepare turns what was asked into binds whose targets exist, and mounts the
// overlay under them.
func prepare(req *launcher.Request, realName string, r *rootfs, image *imageConfig, devs *chosen) ([]bind, error) {
	if err := r.look(); err != nil {
		return nil, err
	}
	if err := writeAccounts(req, realName, r.tree, r.work); err != nil {
		return nil, err
	}
	extra, err := devs.mounts(r.work, req.Devices.Minimal)
	if err != nil {
		return nil, err
	}
	host, more, err := r.hostMPI(&req.HostMPI, image)
	if err != nil {
		return nil, err
	}
	libraries, err := r.doWork(&devs.work, extra, more)
	if err != nil {
		return nil, err
	}
	all, err := plan(req, r.work, slices.Concat(extra, libraries, host))
	if err != nil {
		return nil, err
	}
	if all, err = r.protectNode(req, all); err != nil {
		return nil, err
	}
	binds, err := r.present(all, &req.Site)
	if err != nil {
		return nil, err
	}
	binds = r.yield(binds)
	if r.changes == "" && (req.Site.Volumes || req.Writable) {
		if binds, err = r.planVolumes(image.Config.Volumes, req.Writable, binds); err != nil {
			return nil, err
		}
	}
	if req.Writable {
		if binds, err = r.copyFiles(binds); err != nil {
			return nil, err
		}
	}
	if req.Writable && req.RemapRoot && !manyIDs() {
		if err := r.helpInstallers(); err != nil {
			return nil, err
		}
	}
	marker, err := r.addMarker()
	if err != nil {
		return nil, err
	}
	entrypoint, err := r.addEntrypoint(req.Entrypoint, image)
	if err != nil {
		return nil, err
	}
	binds = append(append(binds, marker), entrypoint...)
	if err := r.addPoints(binds); err != nil {
		return nil, err
	}
	if err := r.addWorkdir(image.Config.WorkingDir); err != nil {
		return nil, err
	}
	if err := r.keepTimes(); err != nil {
		return nil, err
	}
	if err := r.mountVolumes(); err != nil {
		return nil, r.explainOverlay(err)
	}
	return binds, r.mount(req.Writable)
}

func handOver(channel *os.File, req *launcher.Request, r *rootfs, image *imageConfig, devs *chosen, c *started, made launcher.Made) error {
	cwd := workdir(req, image)
	if err := checkWorkdir(c.pid, cwd, req.Workdir != ""); err != nil {
		return err
	}
	env, err := launcher.ImageEnv(image.Config.Env)
	if err != nil {
		return err
	}
	entrypoint, err := entrypointRecords(req.Entrypoint, image)
	if err != nil {
		return err
	}
	res, err := result(cwd, req.Site.Env, env, slices.Concat(devs.Env, req.HostMPI.Env), entrypoint)
	if err != nil {
		return err
	}
	defer res.Close()
	if err := r.writeMarker(req, c.pid, res); err != nil {
		return err
	}
	mnt, err := os.Open(fmt.Sprintf("/proc/%d/ns/mnt", c.pid))
	if err != nil {
		return err
	}
	defer mnt.Close()
	own, err := openOwn(c.pid, req.Made())
	if err != nil {
		return err
	}
	defer closeAll(own)
	if err := c.runStartHooks(mnt); err != nil {
		return err
	}
	reply := &launcher.Reply{Ready: true, Notes: slices.Concat(r.notes, devs.Notes, c.hooks.notes), Sources: r.sources, Made: made.Bounded()}
	files := append([]*os.File{mnt, res}, own...)
	if req.Save && r.changes != "" {
		folder, err := os.Open(r.changes)
		if err != nil {
			return err
		}
		defer folder.Close()
		reply.Changes, files = true, append(files, folder)
	}
	return launcher.SendReply(channel, reply, files...)
}

// attachImage makes the image's tree readable at r.image.
func (r *rootfs) attachImage(channel *os.File, req *launcher.Request) error {
	switch req.Image.Kind {
	case launcher.RootMounted:
		return nil
	case launcher.RootFolder:
		return r.bindFolder(req.Image.Path)
	case launcher.RootFUSE:
		return r.mountFUSE(channel, 0)
	case launcher.RootFile:
		return r.attachFile(channel, req)
	}
	return fmt.Errorf("unknown kind of image %q", req.Image.Kind)
}
