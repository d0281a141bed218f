package inside

import (
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/berth-hpc/berth/launcher"
	"github.com/berth-hpc/berth/launcher/devices"
	"golang.org/x/sys/unix"
	specs "tags.cncf.io/container-device-interface/specs-go"
)

// chosen are the devices of one container.
type chosen struct {
	*devices.Edits
	names []string // of the catalogue, and device files
	work  devices.Work
	binds []bind // what comes with them, their device files apart
}

// readCatalogue reads what the machine has to give; nil is nothing.
func readCatalogue(f *os.File) (*devices.Catalogue, error) {
	if f == nil {
		return new(devices.Catalogue), nil
	}
	return devices.Read(f)
}

// chooseDevices decides which devices the container gets.
func chooseDevices(req *launcher.Request, c *devices.Catalogue, image *imageConfig) (*chosen, error) {
	choice, err := req.Devices.Choose(c, image.Config.Env)
	if err != nil {
		return nil, err
	}
	d := &chosen{Edits: c.Edits(choice), names: slices.Concat(choice.Names, choice.Files)}
	d.work = d.TakeWork()
	for i := range d.Mounts {
		b, err := deviceMount(&d.Mounts[i])
		if err != nil {
			return nil, err
		}
		d.binds = append(d.binds, b)
	}
	d.noteGroups(req.User)
	return d, nil
}

// deviceMount turns a mount of a spec into ours.
func deviceMount(m *specs.Mount) (bind, error) {
	b := bind{source: m.HostPath, target: m.ContainerPath, propagation: unix.MS_SLAVE | unix.MS_REC}
	if m.Type == "tmpfs" {
		b.tmpfs, b.flags, b.data = true, unix.MS_NOSUID|unix.MS_NODEV, strings.Join(m.Options, ",")
		return b, checkTarget(&b)
	}
	for _, word := range m.Options {
		if !b.setFlag(word) {
			return b, siteError(fmt.Sprintf("mount %s, as a CDI spec says: unknown flag %q", m.HostPath, word), "correct the spec; berth doctor names its file")
		}
	}
	if _, err := os.Stat(b.source); err != nil {
		return b, siteError(fmt.Sprintf("mount %s, as a CDI spec says: %v", m.HostPath, bare(err)),
			"make the spec again: it is older than what is installed (for NVIDIA: nvidia-ctk cdi generate --output=/etc/cdi/nvidia.yaml)")
	}
	return b, checkTarget(&b)
}

// noteGroups tells of groups that the user would have to be in: nothing here
// can give them to anybody.
func (d *chosen) noteGroups(u launcher.User) {
	for _, g := range d.Groups {
		if int(g) != u.GID && !slices.Contains(u.Groups, int(g)) {
			d.Notes = append(d.Notes, fmt.Sprintf("a device wants its user to be in group %d, which %s is not", g, u.Name))
		}
	}
}

// mounts returns every bind that the devices take, the /dev of the container
// among them if it is not the machine's own.
func (d *chosen) mounts(work string, minimal bool) ([]bind, error) {
	var binds []bind
	if err := d.checkNodes(); err != nil {
		return nil, err
	}
	if minimal || d.changesDev() {
		dev := filepath.Join(work, "dev")
		if err := d.buildDev(dev, minimal); err != nil {
			return nil, fmt.Errorf("make /dev: %w", err)
		}
		binds = append(binds, bind{source: dev, target: "/dev", propagation: unix.MS_SLAVE | unix.MS_REC})
	}
	for _, n := range d.Nodes {
		if !below(n.Path, "/dev") {
			binds = append(binds, bind{source: n.Host, target: n.Path, propagation: unix.MS_SLAVE | unix.MS_REC})
		}
	}
	return append(binds, d.binds...), nil
}

// checkNodes drops optional files that are missing and refuses the others.
func (d *chosen) checkNodes() error {
	var missing error
	d.Nodes = slices.DeleteFunc(d.Nodes, func(n devices.Node) bool {
		_, err := os.Stat(n.Host)
		if err != nil && !n.Optional {
			missing = siteError(fmt.Sprintf("device file %s: %v", n.Host, bare(err)),
				"choose a device that this machine has (berth devices); if a CDI spec names the file, make the spec again")
		}
		return err != nil
	})
	return missing
}

// changesDev says whether the machine's own /dev would show too much or lack
// something.
func (d *chosen) changesDev() bool {
	moved := slices.ContainsFunc(d.Nodes, func(n devices.Node) bool { return n.Host != n.Path && below(n.Path, "/dev") })
	return moved || slices.ContainsFunc(d.Hidden, func(p string) bool {
		_, err := os.Lstat(p)
		return err == nil && below(p, "/dev")
	})
}

func below(p, dir string) bool { return strings.HasPrefix(p, dir+"/") }

// What a /dev has that is not the machine's own; what is missing there is left
// out here.
var (
	basicDevices = []string{
		"null", "zero", "full", "random", "urandom", "tty", "ptmx", "pts", "shm", "mqueue", "hugepages",
	}
	basicLinks = map[string]string{
		"fd": "/proc/self/fd", "stdin": "/proc/self/fd/0", "stdout": "/proc/self/fd/1", "stderr": "/proc/self/fd/2",
	}
)

// buildDev makes a folder of bound device files. It is on a file system
// without devices, but the files are in the machine's: opening them works as
// on the machine, with the same rights.
func (d *chosen) buildDev(dev string, minimal bool) error {
	if err := os.Mkdir(dev, 0o755); err != nil {
		return err
	}
	if minimal {
		for _, name := range basicDevices {
			if err := d.show(dev, path.Join("/dev", name)); err != nil {
				return err
			}
		}
		for name, target := range basicLinks {
			if err := os.Symlink(target, filepath.Join(dev, name)); err != nil {
				return err
			}
		}
	} else if err := d.showFolder(dev, "/dev"); err != nil {
		return err
	}
	for _, n := range d.Nodes {
		if below(n.Path, "/dev") {
			if err := place(n.Host, filepath.Join(dev, strings.TrimPrefix(n.Path, "/dev/"))); err != nil {
				return err
			}
		}
	}
	return nil
}

// showFolder shows what is in a folder of the machine's /dev.
func (d *chosen) showFolder(dev, folder string) error {
	entries, err := os.ReadDir(folder)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if err := d.show(dev, path.Join(folder, e.Name())); err != nil {
			return err
		}
	}
	return nil
}

// show binds one entry of the machine's /dev unless it is hidden, or of no use
// to the user, who may not open it.
func (d *chosen) show(dev, p string) error {
	st, err := os.Lstat(p)
	to := filepath.Join(dev, strings.TrimPrefix(p, "/dev/"))
	switch {
	case errors.Is(err, os.ErrNotExist) || slices.Contains(d.Hidden, p):
		return nil
	case err != nil:
		return err
	case st.Mode()&os.ModeSymlink != 0:
		target, err := os.Readlink(p)
		return errors.Join(err, os.Symlink(target, to))
	case st.IsDir() && d.hidesBelow(p):
		return errors.Join(os.Mkdir(to, 0o755), d.showFolder(dev, p))
	case st.IsDir():
		return place(p, to)
	case unix.Access(p, unix.R_OK) != nil && unix.Access(p, unix.W_OK) != nil:
		return nil
	}
	return place(p, to)
}

func (d *chosen) hidesBelow(dir string) bool {
	return slices.ContainsFunc(d.Hidden, func(h string) bool { return below(h, dir) })
}

// place binds a file or folder to a path in the container's /dev, which may
// show it already.
func place(from, to string) error {
	st, err := os.Stat(from)
	if err != nil {
		return err
	}
	if _, err := os.Lstat(to); err == nil {
		return nil
	}
	if st.IsDir() {
		err = os.MkdirAll(to, 0o755)
	} else {
		err = errors.Join(os.MkdirAll(filepath.Dir(to), 0o755), os.WriteFile(to, nil, 0o644))
	}
	if err != nil {
		return err
	}
	return bindOnto(from, to)
}
