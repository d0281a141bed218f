package inside

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"

	"github.com/berth-hpc/berth/imagefile"
	"github.com/berth-hpc/berth/launcher"
	"github.com/berth-hpc/berth/launcher/wire"
	"golang.org/x/sys/unix"
)

// imageConfig is the part of an image's config that a container needs; the
// store's image.json has it under "config" with OCI's names.
type imageConfig struct {
	Config struct {
		Env        []string
		WorkingDir string
		Entrypoint []string
		Cmd        []string
		Volumes    []string
		Labels     map[string]string
	} `json:"config"`
}

// maxConfig bounds an image's config in bytes, as the store does.
const maxConfig = 1 << 20

// readConfig reads an image's config file; nil is an image without one.
func readConfig(f *os.File) (*imageConfig, error) {
	c := new(imageConfig)
	if f == nil {
		return c, nil
	}
	if err := json.NewDecoder(io.LimitReader(f, maxConfig)).Decode(c); err != nil {
		return nil, fmt.Errorf("read image config: %w", err)
	}
	return c, nil
}

// fromTree takes the config of an image that has none beside it from what
// Berth keeps behind its file, or enroot or Apptainer left in its tree.
func (c *imageConfig) fromTree(r *rootfs) {
	found := imagefile.Config{}
	if r.appended != nil {
		found = *r.appended
	} else {
		found = imagefile.ReadConfig(r.readFile)
	}
	c.Config.Env, c.Config.WorkingDir, c.Config.Entrypoint = found.Env, found.WorkingDir, found.Entrypoint
}

// workdir is where tasks start: what the user asked for, else the image's, else /.
func workdir(req *launcher.Request, c *imageConfig) string {
	switch {
	case req.Workdir != "":
		return req.Workdir
	case c.Config.WorkingDir != "":
		return c.Config.WorkingDir
	}
	return "/"
}

// checkWorkdir looks the folder up in the finished container of process pid,
// so that a missing one is one clear error and not one per task.
func checkWorkdir(pid int, dir string, asked bool) error {
	root, err := os.OpenFile(fmt.Sprintf("/proc/%d/root", pid), unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer root.Close()
	how := unix.OpenHow{Flags: unix.O_PATH | unix.O_DIRECTORY | unix.O_CLOEXEC, Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS}
	fd, err := unix.Openat2(int(root.Fd()), dir, &how)
	if err == nil {
		return unix.Close(fd)
	}
	remedy := "the image's WorkingDir is not in the image; give --container-workdir"
	if asked {
		remedy = "give a folder that exists in the image or in a mount to --container-workdir"
	}
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) {
		err = errors.New("no such folder in the container")
	}
	return userError(fmt.Sprintf("working directory %s: %v", dir, err), remedy)
}

// result writes what every task applies after joining into a sealed memory
// file: its folder, and how its environment is made (launcher/join/join.h);
// more are further records.
func result(cwd string, rules launcher.EnvRules, image, devices []string, more wire.Message) (*os.File, error) {
	m := wire.Message{{Key: "cwd", Value: cwd}}
	for _, list := range []struct {
		key    string
		values []string
	}{{"keep", rules.Keeps()}, {"drop", rules.Drop}, {"env", image}, {"set", slices.Concat(rules.Set, devices)}} {
		for _, v := range list.values {
			m = m.Add(list.key, v)
		}
	}
	data, err := append(m, more...).EncodeUpTo(launcher.MaxResult)
	if err != nil {
		return nil, userError(fmt.Sprintf("the image's environment: %v", err), "rebuild the image with a smaller environment")
	}
	return launcher.NewResult(data)
}
