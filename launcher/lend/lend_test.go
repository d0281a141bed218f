package lend

import (
	"testing"

	"github.com/berth-hpc/berth/launcher"
	"github.com/berth-hpc/berth/launcher/wire"
)

func request() launcher.Request {
	return launcher.Request{
		Mounts: []string{"/a:/b", "/c"}, MountHome: true, Workdir: "/w",
		Job: launcher.Job{Dir: "/home/x", TmpDir: "/tmp/t"}, Label: launcher.Label{Image: "debian:12", Env: []string{"A=1", "B"}},
	}
}

// TestLendable: whatever a request does not carry is not asked for, instead of
// being lost on the way.
func TestLendable(t *testing.T) {
	for name, tc := range map[string]struct {
		change func(*launcher.Request)
		want   bool
	}{
		"all that it carries": {func(*launcher.Request) {}, true},
		"nothing":             {func(r *launcher.Request) { *r = launcher.Request{Label: launcher.Label{Image: "a"}} }, true},
		"root's part":         {func(r *launcher.Request) { r.Site.Mounts, r.MountDir, r.Work = []string{"/db"}, true, "/w" }, true},
		"where changes go":    {func(r *launcher.Request) { r.Scratch.Folder = "%t" }, true},
		"devices":             {func(r *launcher.Request) { r.Devices.Asked = []string{"/dev/kvm"} }, false},
		"writable":            {func(r *launcher.Request) { r.Writable = true }, false},
		"root in appearance":  {func(r *launcher.Request) { r.RemapRoot = true }, false},
		"kept changes":        {func(r *launcher.Request) { r.Changes = "/c" }, false},
		"a name":              {func(r *launcher.Request) { r.Label.Name = "n" }, false},
		"a job's spool":       {func(r *launcher.Request) { r.Job.Spool = "/var/spool" }, false},
	} {
		r := request()
		tc.change(&r)
		if got := Lendable(&r); got != tc.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}

func TestDecode(t *testing.T) {
	good := Request{Image: "debian:12", Digest: "sha256:0", Container: request()}.message()
	if _, err := decode(good); err != nil {
		t.Fatal(err)
	}
	for name, more := range map[string]wire.Record{
		"an unknown key":       {Key: "uid", Value: "0"},
		"work":                 {Key: "work", Value: "/etc"},
		"image by path":        {Key: "image", Value: "/etc/shadow"},
		"image by way up":      {Key: "image", Value: "../x"},
		"no image":             {Key: "image", Value: ""},
		"no digest":            {Key: "digest", Value: ""},
		"folder from nowhere":  {Key: "cwd", Value: "etc"},
		"site's mounts":        {Key: "site_mounts", Value: "/"},
		"a job's own":          {Key: "spool", Value: "/root"},
		"somebody else's rest": {Key: "changes", Value: "/root"},
	} {
		if r, err := decode(append(good[:len(good):len(good)], more)); err == nil {
			t.Errorf("%s: taken: %+v", name, r)
		}
	}
}
