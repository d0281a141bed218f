package inside

import (
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// What is mounted by whom must not change what hides what.
func TestSplit(t *testing.T) {
	for name, c := range map[string]struct{ targets, ours, left string }{
		"apart":              {"/proc /tmp /var/tmp /etc/hosts", "/proc /tmp /var/tmp /etc/hosts", ""},
		"dev":                {"/proc /dev /tmp", "/proc /tmp", "/dev"},
		"below dev":          {"/dev /dev/shm /tmp", "/tmp", "/dev /dev/shm"},
		"in another":         {"/tmp /tmp/x /data", "/tmp /data", "/tmp/x"},
		"over another":       {"/data/x /data", "/data/x /data", ""},
		"over what is left":  {"/tmp /tmp/x/y /tmp/x", "/tmp", "/tmp/x/y /tmp/x"},
		"above what is left": {"/dev/shm/a /dev /dev/shm", "/dev/shm/a", "/dev /dev/shm"},
		"a name in common":   {"/tmp /tmpfs /tmp2/x", "/tmp /tmpfs /tmp2/x", ""},
		"shared":             {"/proc shared:/data /data/x /tmp", "/proc /tmp", "/data /data/x"},
	} {
		t.Run(name, func(t *testing.T) {
			var binds []bind
			for target := range strings.FieldsSeq(c.targets) {
				b := bind{propagation: unix.MS_SLAVE | unix.MS_REC}
				if rest, ok := strings.CutPrefix(target, "shared:"); ok {
					target, b.propagation = rest, unix.MS_SHARED|unix.MS_REC
				}
				b.target = target
				binds = append(binds, b)
			}
			ours, left := split(binds)
			if got := targets(ours); got != c.ours {
				t.Errorf("ours: %q, want %q", got, c.ours)
			}
			if got := targets(left); got != c.left {
				t.Errorf("left: %q, want %q", got, c.left)
			}
		})
	}
}

// A link in the tree, even one that was put there after its targets had been
// resolved, leads to places of the tree.
func TestMountBelowStaysInTheTree(t *testing.T) {
	dir := t.TempDir()
	outside, source, tree := filepath.Join(dir, "outside"), filepath.Join(dir, "source"), filepath.Join(dir, "tree")
	for _, d := range []string{outside, filepath.Join(source, "mounted"), filepath.Join(tree, outside)} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink(outside, filepath.Join(tree, "absolute")); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(strings.Repeat("../", 40)+outside, filepath.Join(tree, "relative")); err != nil {
		t.Fatal(err)
	}
	for _, target := range []string{"/absolute", "/relative"} {
		b := bind{source: source, target: target, readonly: true, flags: unix.MS_NOEXEC, propagation: unix.MS_SLAVE | unix.MS_REC}
		seen := inNamespace(t, func() (seen []string) {
			r := &rootfs{path: tree}
			if _, err := r.attachBinds([]bind{b}); err != nil {
				return []string{err.Error()}
			}
			for _, place := range []string{outside, filepath.Join(tree, outside)} {
				var st unix.Statfs_t
				_, err := os.Stat(filepath.Join(place, "mounted"))
				if err == nil && unix.Statfs(place, &st) == nil && st.Flags&(unix.ST_RDONLY|unix.ST_NOEXEC) == unix.ST_RDONLY|unix.ST_NOEXEC {
					seen = append(seen, place)
				}
			}
			return seen
		})
		if want := []string{filepath.Join(tree, outside)}; !slices.Equal(seen, want) {
			t.Errorf("%s: mounted at %q, want %q", target, seen, want)
		}
	}
}

// inNamespace calls f in a mount namespace that goes with it.
func inNamespace(t *testing.T, f func() []string) []string {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("mounts need root")
	}
	result := make(chan []string)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with this function
		if err := unix.Unshare(unix.CLONE_FS | unix.CLONE_NEWNS); err != nil {
			result <- []string{err.Error()}
			return
		}
		if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_SLAVE, ""); err != nil {
			result <- []string{err.Error()}
			return
		}
		result <- f()
	}()
	return <-result
}
