package inside

import (
	"cmp"
	"fmt"
	"os"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/berth-hpc/berth/launcher"
	securejoin "github.com/cyphar/filepath-securejoin"
)

// writeAccounts makes the container's passwd and group: the image's own, and
// the user with their groups on top, so that name look-ups of them always
// answer, from files alone. Without this, ssh, git and Open MPI refuse to run
// for an unknown uid.
func writeAccounts(req *launcher.Request, realName, image, work string) error {
	u := req.User
	account := fmt.Sprintf("%s:x:%d:%d:%s:%s:%s", u.Name, u.UID, u.GID, field(realName, ""), field(u.Home, "/"), usableShell(image, u.Shell))
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
// of the number. It returns the user's real name, "" where there is none.
func lookUp(u *launcher.User) (realName string) {
	if known := accountOf(u.UID); known != nil {
		u.Name, u.Home, realName = known.name, known.home, known.realName
		u.Shell = cmp.Or(known.shell, u.Shell)
	}
	u.Name = field(u.Name, fmt.Sprintf("user%d", u.UID))
	return realName
}

// usableShell is the user's login shell if the image has one at that path.
func usableShell(image, shell string) string {
	const otherwise = "/bin/sh"
	if shell = field(shell, otherwise); !filepath.IsAbs(shell) {
		return otherwise
	}
	p, err := securejoin.SecureJoin(image, shell)
	if err != nil {
		return otherwise
	}
	if st, err := os.Stat(p); err != nil || !st.Mode().IsRegular() || st.Mode().Perm()&0o111 == 0 {
		return otherwise
	}
	return shell
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
// Who is in a group in the image stays in it, if the number is the same.
func writeMerged(image, file, out string, lines []string) error {
	var theirs []string
	if p, err := securejoin.SecureJoin(image, file); err == nil {
		text, _ := os.ReadFile(p) // an image without accounts is fine
		for l := range strings.Lines(string(text)) {
			theirs = append(theirs, strings.TrimRight(l, "\n"))
		}
	}
	for i, ours := range lines {
		theirs = slices.DeleteFunc(theirs, func(l string) bool {
			if named(l) != named(ours) {
				return false
			}
			lines[i] = withMembers(lines[i], l)
			return true
		})
	}
	text := strings.Join(slices.Concat(lines, theirs), "\n") + "\n"
	return os.WriteFile(out, []byte(text), 0o644)
}

func named(line string) string {
	name, _, _ := strings.Cut(line, ":")
	return name
}

// withMembers adds to a line of a group file who is in the other one's group.
func withMembers(ours, theirs string) string {
	const number, members, fields = 2, 3, 4
	a, b := strings.Split(ours, ":"), strings.Split(theirs, ":")
	if len(a) != fields || len(b) != fields || a[number] != b[number] {
		return ours
	}
	all := strings.FieldsFunc(a[members]+","+b[members], func(r rune) bool { return r == ',' })
	slices.Sort(all)
	a[members] = strings.Join(slices.Compact(all), ",")
	return strings.Join(a, ":")
}
