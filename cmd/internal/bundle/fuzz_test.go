package bundle

import (
	"os"
	"path/filepath"
	"regexp"
	"testing"
)

// FuzzRead: a bundle that is read says a program, a root and a folder, and its
// mounts are each one entry of berth run --mount, whatever is in their paths.
func FuzzRead(f *testing.F) {
	f.Add([]byte(`{"ociVersion":"1.0.2","root":{"path":"rootfs","readonly":true},"process":{"args":["sh"],"cwd":"/","env":["A=b"],"user":{"uid":0}},"mounts":[{"destination":"/proc","type":"proc","source":"proc"},{"destination":"/data","type":"bind","source":"data","options":["rbind","ro","x"]},{"destination":"/run","type":"tmpfs"},{"destination":"/c","type":"cgroup"}],"hostname":"h","hooks":{},"linux":{"devices":[{"path":"/dev/x"}]}}`))
	f.Add([]byte(`{"ociVersion":"1.1.0","root":{"path":"/r"},"process":{"args":["a"],"cwd":"/"},"mounts":[{"destination":"/a,/etc:/b","type":"tmpfs"},{"destination":"/x","type":"bind","source":"/y"}]}`))
	f.Add([]byte(`{"ociVersion":"1","mounts":null}`))
	entry := regexp.MustCompile(`^(tmpfs:/[^:,\n]*|/[^:,\n]*:/[^:,\n]*(:[a-z]+(\+[a-z]+)*)?)$`)
	f.Fuzz(func(t *testing.T, config []byte) {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, "config.json"), config, 0o644); err != nil {
			t.Fatal(err)
		}
		b, err := Read(dir)
		if err != nil {
			return
		}
		if len(b.Args) == 0 || !filepath.IsAbs(b.Root) || !filepath.IsAbs(b.Cwd) || b.Dir != dir {
			t.Errorf("%+v", b)
		}
		for _, m := range b.Mounts {
			if !entry.MatchString(m) {
				t.Errorf("the mount %q", m)
			}
		}
	})
}
