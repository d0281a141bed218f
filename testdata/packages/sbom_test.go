package packages

import (
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// A component is one of SPDX's packages.
type component struct {
	ID        string `json:"SPDXID"`
	Name      string
	Version   string `json:"versionInfo"`
	File      string `json:"packageFileName"`
	Checksums []struct{ ChecksumValue string }
}

// A bill is a bill of materials, by what it says of each file: how it is linked
// to what of which version.
type bill struct {
	Creation      struct{ Created string } `json:"creationInfo"`
	Packages      []component
	Relationships []struct {
		From string `json:"spdxElementId"`
		How  string `json:"relationshipType"`
		To   string `json:"relatedSpdxElement"`
	}
}

// readBill reads a package's; every identifier in it is somebody's, once.
func readBill(t *testing.T, path string) (b bill, linked map[string][]string) {
	t.Helper()
	text, err := os.ReadFile(path)
	if err == nil {
		err = json.Unmarshal(text, &b)
	}
	if err != nil {
		t.Fatal(err)
	}
	byID := map[string]component{"SPDXRef-DOCUMENT": {}}
	for _, c := range b.Packages {
		if _, twice := byID[c.ID]; twice || !regexp.MustCompile(`^SPDXRef-[A-Za-z0-9.-]+$`).MatchString(c.ID) {
			t.Errorf("identifier %q", c.ID)
		}
		byID[c.ID] = c
	}
	linked = map[string][]string{}
	for _, r := range b.Relationships {
		from, ok := byID[r.From]
		to, also := byID[r.To]
		if !ok || !also {
			t.Errorf("of nobody: %v", r)
		}
		if from.File != "" {
			linked[from.File] = append(linked[from.File], strings.TrimSpace(r.How+" "+to.Name+" "+to.Version))
		}
	}
	return b, linked
}

// The bills of materials name every program of their packages as it is, and what
// the programs themselves say is linked into them.
func TestBillOfMaterials(t *testing.T) {
	for name, sheet := range map[string]string{"berth": "berth", "berth-slurm-22.05": "berth-slurm", "berth-pbs": "berth-pbs"} {
		dir := unpacked(t, name)
		b, linked := readBill(t, filepath.Join(dir, "usr/share/doc", name, sheet+".spdx.json"))
		if b.Creation.Created != "2023-11-14T22:13:20Z" { // what makePackages sets
			t.Errorf("%s was made at %s", name, b.Creation.Created)
		}
		sums := map[string]string{}
		for _, c := range b.Packages {
			if c.File != "" {
				sums[c.File] = c.Checksums[0].ChecksumValue
			}
		}
		want := map[string]string{}
		for _, file := range strings.Fields(output(t, "find", dir+"/usr", "-path", "*/berth*", "-type", "f", "!", "-path", dir+"/usr/share/*", "!", "-name", "*.conf", "!", "-path", "*/systemd/*")) {
			content, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			rel := strings.TrimPrefix(file, dir+"/")
			want[rel] = fmt.Sprintf("%x", sha256.Sum256(content))
			expected := linkedInto(t, file)
			slices.Sort(linked[rel])
			if got := linked[rel]; !slices.Equal(got, expected) {
				t.Errorf("%s:\n%s\nwant\n%s", rel, strings.Join(got, "\n"), strings.Join(expected, "\n"))
			}
		}
		if !maps.Equal(sums, want) || len(want) == 0 {
			t.Errorf("%s has\n%v\nwant\n%v", name, sums, want)
		}
	}
}

// linkedInto asks other tools what is linked into a file.
func linkedInto(t *testing.T, file string) (all []string) {
	t.Helper()
	said := output(t, "sh", "-c", "go version -m "+file+" 2>&1 || :; readelf -dW "+file+" 2>/dev/null || :")
	for line := range strings.Lines(said) {
		fields := strings.Fields(line)
		switch {
		case len(fields) == 2 && fields[0] == file+":":
			all = append(all, "STATIC_LINK stdlib "+strings.TrimPrefix(fields[1], "go"))
		case len(fields) > 2 && fields[0] == "dep":
			all = append(all, "STATIC_LINK "+fields[1]+" "+fields[2])
		case strings.Contains(line, "(NEEDED)"):
			all = append(all, "DYNAMIC_LINK "+strings.Trim(fields[len(fields)-1], "[]"))
		}
	}
	static := map[string][2]string{"berth-join": {"musl", "musl-dev"}, "berth-ready": {"musl", "musl-dev"}, "berth-slurm": {"glibc", "libc6-dev"}}
	if libc, ok := static[filepath.Base(file)]; ok {
		all = append(all, "STATIC_LINK "+libc[0]+" "+output(t, "dpkg-query", "-W", "-f", "${Version}", libc[1]))
	}
	slices.Sort(all)
	return all
}
