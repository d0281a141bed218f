package launcher

import (
	"encoding/json"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// FuzzPackets: whatever a peer sends, with however many descriptors, is taken or
// refused, and nothing that was not handed on stays open.
func FuzzPackets(f *testing.F) {
	f.Add([]byte(`{"request":{"user":{"uid":1},"work":"/w"},"files":["config","catalogue"]}`), uint8(2))
	f.Add([]byte(`{"request":{},"files":["config","config"]}`), uint8(2))
	f.Add([]byte(`{"request":{},"files":["x"]}`), uint8(1))
	f.Add([]byte(`{"failure":{"text":"a"},"ready":true}`), uint8(4))
	f.Add([]byte(`{"request":null}`), uint8(0))
	f.Add([]byte{}, uint8(3))
	null, err := os.Open(os.DevNull)
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, data []byte, count uint8) {
		if len(data) > 64<<10 {
			return
		}
		a, b, err := socketpair()
		if err != nil {
			t.Fatal(err)
		}
		defer a.Close()
		defer b.Close()
		files := slices.Repeat([]*os.File{null}, int(count)%12)
		before := descriptors(t)
		for range 2 {
			if err := SendPacket(a, data, files...); err != nil {
				t.Fatal(err)
			}
		}
		if req, attached, err := ReceiveRequest(b); err == nil {
			if req == nil {
				t.Error("no request, and no error")
			}
			attached.Close()
		}
		if reply, got, err := receiveReply(b); err == nil {
			if reply == nil || len(got) != len(files) {
				t.Errorf("%v with %d of %d descriptors", reply, len(got), len(files))
			}
			closeAll(got)
		}
		if after := descriptors(t); after != before {
			t.Errorf("%d descriptors became %d", before, after)
		}
	})
}

// FuzzMarker: what a container says of itself is read back as it was written.
func FuzzMarker(f *testing.F) {
	f.Add([]byte(`{"job":"1","step":"batch","image":"a","env":["A=1"],"remap":true,"unshare":["net"],"mount":4026531840,"result":"Y3dkPS8A"}`))
	f.Add([]byte(`null`))
	f.Fuzz(func(t *testing.T, data []byte) {
		m, err := decodeMarker(data)
		if err != nil {
			return
		}
		text, err := m.Encode()
		if err != nil {
			return // longer than what is written
		}
		again, err := decodeMarker(text)
		if err != nil || !sameJSON(m, again) {
			t.Errorf("%+v, again %+v, %v", m, again, err)
		}
	})
}

func sameJSON(a, b any) bool {
	x, err1 := json.Marshal(a)
	y, err2 := json.Marshal(b)
	return err1 == nil && err2 == nil && string(x) == string(y)
}

// FuzzSubIDs: whatever the file says, the range is the user's, holds no account,
// not the user themself, and nothing of anybody else's.
func FuzzSubIDs(f *testing.F) {
	f.Add("alice:200000:65536\nbob:300000:65536\n")
	f.Add("62001:100000:65536\n62001:4294967290:6\nalice:65536:4294901758")
	f.Add("alice:269000:65536\n#\n\nalice:1:2:3")
	f.Fuzz(func(t *testing.T, text string) {
		const own = 270000
		r, err := chooseRange(strings.NewReader(text), "alice", 62001, own)
		if err != nil || r.Count == 0 {
			return
		}
		last := uint64(r.Start) + uint64(r.Count) - 1
		if r.Start < firstSubID || last > lastSubID || r.overlaps(IDRange{own, 1}) {
			t.Errorf("%v of %q", r, text)
		}
		mine := false
		for line := range strings.Lines(text) {
			owner, other, ok := parseRange(line)
			if !ok {
				continue
			}
			if owner == "alice" || owner == "62001" {
				mine = mine || other == r
			} else if other.overlaps(r) {
				t.Errorf("%v is in part %s's, %v", r, owner, other)
			}
		}
		if !mine {
			t.Errorf("%v is no range of the user's in %q", r, text)
		}
	})
}

// FuzzImageEnv: variables of an image have a name once each and fit into a
// program's; a second time changes nothing, and a task gets each unless its user
// keeps another.
func FuzzImageEnv(f *testing.F) {
	f.Add("PATH=/bin\nA=1\nA=2\n=x\nB\nB=\n", "A=host\nLANG=C\nSLURM_JOB_ID=1", "A")
	f.Add("SLURM_X=1\nA\x00=1", "SLURM_X=2", "")
	f.Fuzz(func(t *testing.T, image, host, user string) {
		vars, err := ImageEnv(strings.Split(image, "\n"))
		if err != nil {
			return
		}
		again, err := ImageEnv(vars)
		if diff := cmp.Diff(vars, again); err != nil || diff != "" {
			t.Errorf("%v: %s", err, diff)
		}
		names := map[string]string{}
		for _, v := range vars {
			name, value, ok := strings.Cut(v, "=")
			if _, had := names[name]; had || !ok || name == "" || len(v) > MaxVariable || strings.Contains(v, "\x00") {
				t.Errorf("variable %.100q", v)
			}
			names[name] = value
		}
		explained := map[string]string{}
		for _, v := range ExplainEnv(strings.Split(host, "\n"), vars, []string{user}, EnvRules{Drop: []string{"X*"}}) {
			if _, twice := explained[v.Name]; twice {
				t.Errorf("%q twice", v.Name)
			}
			explained[v.Name] = v.Value
		}
		for _, name := range slices.Sorted(maps.Keys(names)) {
			if name != user && !matchesAny(EnvRules{}.Keeps(), name) && explained[name] != names[name] {
				t.Errorf("%q is %q, not the image's %q", name, explained[name], names[name])
			}
		}
	})
}
