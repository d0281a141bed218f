package inside

import (
	"os"
	"strings"
	"testing"

	"github.com/berth-hpc/berth/launcher"
	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

const slave = unix.MS_SLAVE | unix.MS_REC

func TestParseMounts(t *testing.T) {
	for value, want := range map[string][]bind{
		"/data":                {{source: "/data", target: "/data", propagation: slave}},
		"/data:/in":            {{source: "/data", target: "/in", propagation: slave}},
		"/data:/in:ro":         {{source: "/data", target: "/in", readonly: true, propagation: slave}},
		"/data:ro":             {{source: "/data", target: "/data", readonly: true, propagation: slave}},
		"/a b:/c d":            {{source: "/a b", target: "/c d", propagation: slave}},
		"./x:/x":               {{source: "/jobdir/x", target: "/x", propagation: slave}},
		"./x":                  {{source: "/jobdir/x", target: "/jobdir/x", propagation: slave}},
		"/a:/b:rw+nosuid+bind": {{source: "/a", target: "/b", flags: unix.MS_NOSUID, single: true, propagation: slave}},
		"/a:/b:rshared":        {{source: "/a", target: "/b", propagation: unix.MS_SHARED | unix.MS_REC}},
		"/a:/b:private":        {{source: "/a", target: "/b", propagation: unix.MS_PRIVATE}},
		"/a:/b:x-create=dir":   {{source: "/a", target: "/b", propagation: slave}},
		"/a:/b,/c:/d": {
			{source: "/a", target: "/b", propagation: slave}, {source: "/c", target: "/d", propagation: slave},
		},
		"/a:/b/../c/./d": {{source: "/a", target: "/c/d", propagation: slave}},
		"tmpfs:/s":       {{source: "tmpfs", target: "/s", tmpfs: true, flags: unix.MS_NOSUID | unix.MS_NODEV, propagation: slave}},
		"tmpfs:/s:size=1m+ro+mode=700+noexec": {{
			source: "tmpfs", target: "/s", tmpfs: true, readonly: true, data: "size=1m,mode=700",
			flags: unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC, propagation: slave,
		}},
		"tmpfs:/s:size=1m":  {{source: "tmpfs", target: "/s", tmpfs: true, data: "size=1m", flags: unix.MS_NOSUID | unix.MS_NODEV, propagation: slave}},
		"umount:/etc/hosts": {{source: "umount", target: "/etc/hosts", remove: true, propagation: slave}},
	} {
		got, err := parseMounts(value, "/jobdir")
		if err != nil {
			t.Errorf("%s: %v", value, err)
			continue
		}
		if diff := cmp.Diff(want, got, cmp.AllowUnexported(bind{})); diff != "" {
			t.Errorf("%s:\n%s", value, diff)
		}
	}
}

// What the plugin refuses at submission is refused here, and nothing else.
func TestMountTable(t *testing.T) {
	table, err := os.ReadFile("../../spank/tests/testdata/mounts.txt")
	if err != nil {
		t.Fatal(err)
	}
	lines := 0
	for line := range strings.Lines(string(table)) {
		want, value, ok := strings.Cut(strings.TrimSuffix(line, "\n"), "\t")
		if !ok {
			continue
		}
		lines++
		_, err := parseMounts(value, "/jobdir")
		if want == "ok" && err != nil || want != "ok" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("%q: %v, want %s", value, err, want)
		}
	}
	if lines < 80 {
		t.Errorf("only %d lines", lines)
	}
	if _, err := parseMounts("/a\n:/b", "/"); err == nil {
		t.Error("accepted a control character")
	}
}

// TestMountsTable: what is taken here is what PBS's hook lets through.
func TestMountsTable(t *testing.T) {
	table, err := os.ReadFile("testdata/mounts.txt")
	if err != nil {
		t.Fatal(err)
	}
	lines := 0
	for line := range strings.Lines(string(table)) {
		verdict, value, ok := strings.Cut(strings.TrimSuffix(line, "\n"), " ")
		if !ok || verdict == "#" {
			continue
		}
		lines++
		if _, err := parseMounts(value, "/jobdir"); (err == nil) != (verdict == "good") {
			t.Errorf("%q is %s: %v", value, verdict, err)
		}
	}
	if lines < 20 {
		t.Errorf("only %d lines", lines)
	}
}

// targets lists what a plan mounts, in order.
func targets(bs []bind) string {
	var all []string
	for _, b := range bs {
		all = append(all, b.target)
	}
	return strings.Join(all, " ")
}

func TestPlan(t *testing.T) {
	req := &launcher.Request{
		User:   launcher.User{Name: "alice", Home: "/home/alice"},
		Site:   launcher.Site{Mounts: []string{"/scratch/%u", "/100%%:/p"}},
		Mounts: []string{"/mine:/tmp", "umount:/var/tmp"},
		Job:    launcher.Job{Dir: "/jobdir", TmpDir: "relative/is/ignored", Spool: "/spool/job1"},
	}
	got, err := plan(req, "/w", nil)
	if err != nil {
		t.Fatal(err)
	}
	all := targets(got)
	for _, want := range []string{"/scratch/alice", "/p", "/spool/job1", "/etc/passwd"} {
		if !strings.Contains(all, want) {
			t.Errorf("no %s in %s", want, all)
		}
	}
	if strings.Count(all, "/tmp") != 1 || strings.Contains(all, "/var/tmp") || strings.Contains(all, "/home/alice") || strings.Contains(all, "ignored") {
		t.Errorf("mounts are %s", all)
	}
	for _, b := range got {
		if b.target == "/tmp" && b.source != "/mine" {
			t.Errorf("/tmp comes from %s", b.source)
		}
		if b.target == "/p" && !b.optional {
			t.Error("a site's mount that a node lacks would fail jobs")
		}
	}
}

func TestJobFolderIsShown(t *testing.T) {
	for name, tc := range map[string]struct {
		dir  string
		home bool
		want bool
	}{
		"elsewhere": {"/jobdir/x", false, true}, "the root": {"/", true, false}, "relative": {"x", true, false},
		"in a home that is shown": {"/home/alice/x", true, false}, // it is there already
		"in a home that is not":   {"/home/alice/x", false, true},
		"a home that is not":      {"/home/alice", false, false},
		"above it":                {"/home", false, false},
		"in /tmp":                 {"/tmp/x", false, false},
	} {
		req := &launcher.Request{
			User: launcher.User{Home: "/home/alice"}, MountHome: tc.home, MountDir: true,
			Job: launcher.Job{Dir: tc.dir},
		}
		shown := strings.Contains(" "+targets(defaults(req, "/w"))+" ", " "+tc.dir+" ")
		if shown != tc.want {
			t.Errorf("%s: shown %v", name, shown)
		}
	}
}

// A default that the user takes away with umount is gone; what the user
// mounts there afterwards stays.
func TestUmountThenMount(t *testing.T) {
	bs, err := parseMounts("/a:/tmp,umount:/tmp,/b:/tmp", "/")
	if err != nil {
		t.Fatal(err)
	}
	got := lastWins(bs)
	if len(got) != 1 || got[0].source != "/b" {
		t.Errorf("%+v", got)
	}
}

func TestField(t *testing.T) {
	for value, want := range map[string]string{"": "else", "a:0:0:root": "else", "a\nroot::0:0": "else", "fine": "fine"} {
		if got := field(value, "else"); got != want {
			t.Errorf("field(%q) = %q, want %q", value, got, want)
		}
	}
}
