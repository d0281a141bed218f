package lend

import (
	"encoding/json"
	"path/filepath"
	"strings"
	"testing"

	"github.com/berth-hpc/berth/launcher"
	"github.com/berth-hpc/berth/launcher/wire"
	"github.com/google/go-cmp/cmp"
)

// FuzzDecode: what a user's process may ask root for is what a request carries,
// and nothing else comes along.
func FuzzDecode(f *testing.F) {
	good, err := Request{Image: "debian:12", Digest: "sha256:0", Container: request()}.message().Encode()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Add([]byte("image=a\x00digest=b\x00home=2\x00job=1\x00job=../..\x00"))
	f.Add([]byte("image=../a\x00digest=b\x00"))
	f.Fuzz(func(t *testing.T, data []byte) {
		m, err := wire.Decode(data)
		if err != nil {
			return
		}
		r, err := decode(m)
		if err != nil {
			return
		}
		again, err := decode(r.message())
		if diff := cmp.Diff(r, again); err != nil || diff != "" {
			t.Errorf("%v: %s", err, diff)
		}
		if strings.HasPrefix(r.Image, "/") || strings.HasPrefix(r.Image, ".") || r.Container.Job.Dir != "" && !filepath.IsAbs(r.Container.Job.Dir) {
			t.Errorf("%+v", r)
		}
		rest := r.Container
		rest.Mounts, rest.MountHome, rest.Workdir, rest.Label.Image, rest.Label.Env = nil, false, "", "", nil
		rest.Job.ID, rest.Job.Dir, rest.Job.TmpDir = "", "", ""
		nothing, _ := json.Marshal(launcher.Request{})
		if text, err := json.Marshal(rest); err != nil || string(text) != string(nothing) {
			t.Errorf("%s comes along, %v", text, err)
		}
	})
}
