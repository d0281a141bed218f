package inside

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/berth-hpc/berth/launcher"
	"github.com/berth-hpc/berth/launcher/wire"
	"golang.org/x/sys/unix"
)

// addEntrypoint makes the folder through which the entrypoint's variables come
// to all tasks of the container (launcher/join/variables.h), for an image that
// has one. Everybody may write in it: an entrypoint may become another of the
// container's ids before it starts its command, and nobody of another
// container has this folder.
func (r *rootfs) addEntrypoint(e *launcher.Entrypoint, image *imageConfig) ([]bind, error) {
	if e == nil || len(image.Config.Entrypoint) == 0 {
		return nil, nil
	}
	dir := filepath.Join(r.work, "entrypoint")
	if err := errors.Join(os.Mkdir(dir, 0o755), os.Chmod(dir, 0o777)); err != nil {
		return nil, err
	}
	if err := copyProgram(e.Ready, filepath.Join(dir, "ready")); err != nil {
		return nil, siteError(fmt.Sprintf("run the image's entrypoint: %v", err), "ask the administrator to install Berth again, or take --no-container-entrypoint")
	}
	return []bind{{
		source: dir, target: launcher.EntrypointFolder, isDir: true,
		flags: unix.MS_NOSUID | unix.MS_NODEV, propagation: unix.MS_PRIVATE,
	}}, nil
}

func copyProgram(from, to string) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o755)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	return errors.Join(err, out.Chmod(0o755), out.Close())
}

// entrypointRecords tell the tasks that there is one, and how long it may take.
func entrypointRecords(e *launcher.Entrypoint, image *imageConfig) (wire.Message, error) {
	if e == nil || len(image.Config.Entrypoint) == 0 {
		return nil, nil
	}
	var m wire.Message
	for _, word := range image.Config.Entrypoint {
		if strings.Contains(word, "\x00") {
			return nil, userError("the image's entrypoint has a NUL byte", "take --no-container-entrypoint")
		}
		m = m.Add("entrypoint", word)
	}
	return m.Add("entrypoint_limit", strconv.FormatInt(e.Limit.Milliseconds(), 10)), nil
}
