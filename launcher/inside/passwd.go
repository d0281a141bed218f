package inside

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/berth-hpc/berth/launcher"
	securejoin "github.com/cyphar/filepath-securejoin"
)

// writeAccounts makes the container's passwd and group: the image's own, and
// the user on top, so that name look-ups of the user always answer. Without
// this, ssh, git and Open MPI refuse to run for an unknown uid.
func writeAccounts(req *launcher.Request, image, work string) error {
	u := req.User
	user := fmt.Sprintf("%s:x:%d:%d::%s:%s\n", name(u), u.UID, u.GID, field(u.Home, "/"), field(u.Shell, "/bin/sh"))
	if err := writeMerged(image, "/etc/passwd", filepath.Join(work, "passwd"), user, name(u)); err != nil {
		return err
	}
	group := fmt.Sprintf("%s:x:%d:\n", name(u), u.GID)
	return writeMerged(image, "/etc/group", filepath.Join(work, "group"), group, name(u))
}

func name(u launcher.User) string { return field(u.Name, fmt.Sprintf("user%d", u.UID)) }

// field keeps a value from breaking out of its place in a colon-separated line.
func field(value, otherwise string) string {
	if value == "" || strings.ContainsAny(value, ":\n") {
		return otherwise
	}
	return value
}

// writeMerged writes line, then the image's lines but those of the same name.
func writeMerged(image, file, out, line, name string) error {
	var b strings.Builder
	b.WriteString(line)
	if p, err := securejoin.SecureJoin(image, file); err == nil {
		text, _ := os.ReadFile(p) // an image without accounts is fine
		for l := range strings.Lines(string(text)) {
			if !strings.HasPrefix(l, name+":") {
				b.WriteString(strings.TrimRight(l, "\n") + "\n")
			}
		}
	}
	return os.WriteFile(out, []byte(b.String()), 0o644)
}
