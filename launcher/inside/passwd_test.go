package inside

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/berth-hpc/berth/launcher"
)

// The user and their groups answer by name and by number, whatever accounts
// the image has, and the image's own stay otherwise.
func TestAccounts(t *testing.T) {
	image, work := t.TempDir(), t.TempDir()
	for name, text := range map[string]string{
		"etc/passwd": "root:x:0:0::/root:/bin/ash\nalice:x:1000:1000:image's:/home/image:/bin/zsh\napp:x:62001:62001::/app:/bin/sh\nlast:x:9:9::/:/bin/sh",
		"etc/group":  "root:x:0:\nalice:x:1000:\ngroup62100:x:62100:app,last\ngroup62101:x:17:app\naudio:x:29:app\n",
		"bin/zsh":    "",
	} {
		path := filepath.Join(image, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	req := &launcher.Request{User: launcher.User{
		UID: 62001, GID: 62001, Groups: []int{62001, 62100, 62101}, Name: "alice", Home: "/home/alice", Shell: "/bin/zsh",
	}}
	realName := lookUp(&req.User)
	if err := writeAccounts(req, realName, image, work); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{
		"passwd": "alice:x:62001:62001::/home/alice:/bin/zsh\nroot:x:0:0::/root:/bin/ash\napp:x:62001:62001::/app:/bin/sh\nlast:x:9:9::/:/bin/sh\n",
		"group":  "alice:x:62001:\ngroup62100:x:62100:alice,app,last\ngroup62101:x:62101:alice\nroot:x:0:\naudio:x:29:app\n",
	} {
		if got, err := os.ReadFile(filepath.Join(work, name)); err != nil || string(got) != want {
			t.Errorf("%s, %v:\n%s\nwant\n%s", name, err, got, want)
		}
	}
}

// A login shell that the image does not have would keep every program from
// starting that starts one.
func TestUsableShell(t *testing.T) {
	image := t.TempDir()
	if err := os.Mkdir(filepath.Join(image, "bin"), 0o755); err != nil {
		t.Fatal(err)
	}
	for name, mode := range map[string]os.FileMode{"bin/bash": 0o755, "bin/data": 0o644} {
		if err := os.WriteFile(filepath.Join(image, name), nil, mode); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink("/bin/bash", filepath.Join(image, "bin/link")); err != nil {
		t.Fatal(err)
	}
	for shell, want := range map[string]string{
		"/bin/bash": "/bin/bash", "/bin/link": "/bin/link", "/bin/zsh": "/bin/sh", "/bin/data": "/bin/sh",
		"/bin": "/bin/sh", "bash": "/bin/sh", "": "/bin/sh", "/bin/bash:x": "/bin/sh",
	} {
		if got := usableShell(image, shell); got != want {
			t.Errorf("%q: %q, want %q", shell, got, want)
		}
	}
}

// What the node's name service says of a user comes with shell and real name.
func TestAccountOfTheNode(t *testing.T) {
	text, err := os.ReadFile("/etc/passwd")
	if err != nil {
		t.Skip(err)
	}
	for line := range strings.Lines(string(text)) {
		f := strings.Split(strings.TrimSpace(line), ":")
		if f[0] == "root" && len(f) == 7 {
			name, _, _ := strings.Cut(f[4], ",")
			want := account{name: f[0], home: f[5], shell: f[6], realName: name}
			if got := accountOf(0); got == nil || *got != want {
				t.Errorf("%+v: not that of %s", got, line)
			}
			return
		}
	}
	t.Skip("root is not in /etc/passwd")
}
