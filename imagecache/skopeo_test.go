package imagecache

import (
	"os/exec"
	"path/filepath"
	"testing"
)

// TestSkopeo reads what another tool writes: skopeo's formats are those of
// podman save, too (checked by hand with podman 4.3.1: docker-archive, several
// images in one, oci-archive, docker-dir, oci-dir).
func TestSkopeo(t *testing.T) {
	if _, err := exec.LookPath("skopeo"); err != nil {
		t.Skip(err)
	}
	img := manyLayers(t, "skopeo")
	ref := writeLayout(t, img)
	for _, form := range []string{"oci:", "oci-archive:", "docker-archive:", "dir:"} {
		t.Run(form, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "x")
			to := form + path + ":site/tool:1"
			if form == "dir:" {
				to = form + path
			}
			if out, err := exec.CommandContext(t.Context(), "skopeo", "--insecure-policy", "copy", "-q", ref.String(), to).CombinedOutput(); err != nil {
				t.Fatalf("%v: %s", err, out)
			}
			want := "file 0644 skopeo3"
			for _, from := range []string{to, path} {
				im := pullPath(t, from)
				if got := readTree(t, im.Rootfs())["which"]; got != want {
					t.Errorf("%s: %q", from, got)
				}
			}
		})
	}
}
