package inside

import (
	"fmt"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/berth-hpc/berth/launcher"
	securejoin "github.com/cyphar/filepath-securejoin"
)

// writeAccounts makes the container's passwd and group: the image's own, and
// the user with their groups on top, so that name look-ups of them always
// answer. Without this, ssh, git and Open MPI refuse to run for an unknown
// uid.
func writeAccounts(req *launcher.Request, image, work string) error {
	u := req.User
	account := fmt.Sprintf("%s:x:%d:%d::%s:%s", u.Name, u.UID, u.GID, field(u.Home, "/"), field(u.Shell, "/bin/sh"))
	if err := writeMerged(image, "/etc/passwd", filepath.Join(work, "passwd"), []string{account}); err != nil {
		return err
	}
	groups := []string{fmt.Sprintf("%s:x:%d:", groupName(u.GID, u.Name), u.GID)}
	for _, g := range u.Groups {
		if g != u.GID {
			groups = append(groups, fmt.Sprintf("%s:x:%d:%s", groupName(g, fmt.Sprintf("group%d", g)), g, u.Name))
		}
	}
	return writeMerged(image, "/etc/group", filepath.Join(work, "group"), groups)
}

// lookUp completes what the caller did not say about the user from the
// node's name service. A user whom the node does not know gets a name made
// of the number.
func lookUp(u *launcher.User) {
	if known, err := user.LookupId(strconv.Itoa(u.UID)); err == nil {
		u.Name, u.Home = known.Username, known.HomeDir
	}
	u.Name = field(u.Name, fmt.Sprintf("user%d", u.UID))
}

func groupName(gid int, otherwise string) string {
	g, err := user.LookupGroupId(strconv.Itoa(gid))
	if err != nil {
		return otherwise
	}
	return field(g.Name, otherwise)
}

// field keeps a value from breaking out of its place in a colon-separated line.
func field(value, otherwise string) string {
	if value == "" || strings.ContainsAny(value, ":\n") {
		return otherwise
	}
	return value
}

// writeMerged writes lines, then the image's own but those of the same names.
func writeMerged(image, file, out string, lines []string) error {
	var b strings.Builder
	names := map[string]bool{}
	for _, l := range lines {
		name, _, _ := strings.Cut(l, ":")
		names[name] = true
		b.WriteString(l + "\n")
	}
	if p, err := securejoin.SecureJoin(image, file); err == nil {
		text, _ := os.ReadFile(p) // an image without accounts is fine
		for l := range strings.Lines(string(text)) {
			if name, _, _ := strings.Cut(l, ":"); !names[name] {
				b.WriteString(strings.TrimRight(l, "\n") + "\n")
			}
		}
	}
	return os.WriteFile(out, []byte(b.String()), 0o644)
}
