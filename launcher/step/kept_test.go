package step

import (
	"strings"
	"testing"

	"github.com/berth-hpc/berth/fault"
	"github.com/berth-hpc/berth/launcher"
	"github.com/berth-hpc/berth/launcher/wire"
)

func TestNamesInRequests(t *testing.T) {
	without := func(key string) wire.Message {
		var m wire.Message
		for _, r := range request {
			if r.Key != key {
				m = append(m, r)
			}
		}
		return m
	}
	r, err := parseRequest(without("image").Add("name", "a:exec"))
	if err != nil || r.Kept.Name != "a" || r.Kept.Mode != launcher.KeptExec {
		t.Fatalf("%+v, %v", r, err)
	}
	req := r.launcherRequest(&view{}, Settings{Kept: launcher.Kept{Folder: "/x", OfJob: true}, Scratch: func(int64) launcher.Scratch { return launcher.Scratch{} }})
	if req.Label.Name != "a" || !req.Writable || req.Kept.Folder != "/x" || !req.Kept.OfJob || req.Kept.Mode != launcher.KeptExec {
		t.Errorf("%+v, %+v", req.Label, req.Kept)
	}
	for _, bad := range []string{"a:often", "a:"} {
		if _, err := parseRequest(request.Add("name", bad)); err == nil {
			t.Errorf("%s is taken", bad)
		}
	}
	if _, err := parseRequest(without("image")); err == nil {
		t.Error("neither an image nor a name")
	}
}

// The image below a container's changes decides, and no other takes its place.
func TestImageOfNamedContainer(t *testing.T) {
	old := &launcher.Found{Reference: "x:1", Digest: "sha256:old"}
	for _, tc := range []struct {
		name, image, digest string
		found               *launcher.Found
		want, digestWanted  string
		notes               int
		fails               string
	}{
		{name: "new", image: "x:1", digest: "sha256:new", found: &launcher.Found{}, want: "x:1", digestWanted: "sha256:new"},
		{name: "new from a file", image: "./x.sqsh", found: &launcher.Found{}, want: "/job/x.sqsh"},
		{name: "nothing", found: &launcher.Found{}, fails: "no --container-image"},
		{name: "goes on", found: old, want: "x:1", digestWanted: "sha256:old"},
		{name: "the same tag", image: "x:1", digest: "sha256:old", found: old, want: "x:1", digestWanted: "sha256:old"},
		{name: "the tag has moved", image: "x:1", digest: "sha256:new", found: old, want: "x:1", digestWanted: "sha256:old", notes: 1},
		{name: "another image", image: "y:1", found: old, fails: "it is made from x:1, not from y:1"},
		{name: "the same file", image: "./x.sqsh", found: &launcher.Found{Reference: "/job/x.sqsh"}, want: "/job/x.sqsh"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			r := &Request{Image: tc.image, Digest: tc.digest, Kept: &launcher.Kept{Name: "a"}}
			notes, err := r.takeFound(tc.found, "/job")
			if tc.fails != "" {
				if err == nil || !strings.Contains(err.Error(), tc.fails) || fault.Remedy(err) == "" {
					t.Errorf("%v", err)
				}
				return
			}
			if err != nil || len(notes) != tc.notes || r.Image != tc.want || r.Digest != tc.digestWanted || r.Kept.Reference != tc.want {
				t.Errorf("%+v, %q, %v", r, notes, err)
			}
		})
	}
}
