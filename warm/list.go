package warm

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/BurntSushi/toml"

	"github.com/berth-hpc/berth/fault"
	"github.com/berth-hpc/berth/imagecache"
	"github.com/berth-hpc/berth/imagecache/store"
)

// An Entry is one image for one platform.
type Entry struct {
	Ref imagecache.Reference // in a registry
	// Platform is in ParsePlatform's words; "" is each machine's own.
	Platform string
	// Digest is that of the platform's manifest; zero while nobody has asked.
	Digest store.Digest
	Keep   Keep
	Groups []string
	// From is where the entry stands: FILE:LINE for text, FILE for TOML.
	From string
}

// Name is what the entry is called in lists, records and lock files.
func (e Entry) Name() string { return e.Ref.String() }

// Digested is the reference with the digest.
func (e Entry) Digested() imagecache.Reference { return e.Ref.WithDigest(e.Digest) }

// A Keep says for how long an image stays although nobody uses it. The zero
// Keep says nothing.
type Keep struct {
	For     time.Duration // from the last warming on
	Until   time.Time
	Forever bool
}

// IsZero says that nothing was said.
func (k Keep) IsZero() bool { return k == Keep{} }

// From is the keep of an image that is warmed at now; nil for none, or for one
// that is over.
func (k Keep) From(now time.Time) *store.Keep {
	kept := &store.Keep{Reason: "berth warm"}
	switch {
	case k.Forever:
	case !k.Until.IsZero() && now.Before(k.Until):
		kept.Until = k.Until.UTC()
	case k.For > 0:
		kept.Until = now.Add(k.For).UTC().Round(time.Second)
	default:
		return nil
	}
	return kept
}

// parseKeep reads "720h", a date as in 2027-01-31, a time of RFC 3339, or
// "forever".
func parseKeep(s string) (Keep, error) {
	if s == "" {
		return Keep{}, nil
	}
	if s == "forever" {
		return Keep{Forever: true}, nil
	}
	if d, err := time.ParseDuration(s); err == nil && d > 0 {
		return Keep{For: d}, nil
	}
	for _, layout := range []string{time.DateOnly, time.RFC3339} {
		if t, err := time.Parse(layout, s); err == nil {
			return Keep{Until: t}, nil
		}
	}
	return Keep{}, fmt.Errorf("keep %q is no time: write 720h, 2027-01-31 or forever", s)
}

// String is parseKeep's inverse.
func (k Keep) String() string {
	switch {
	case k.Forever:
		return "forever"
	case !k.Until.IsZero():
		return k.Until.Format(time.RFC3339)
	case k.For > 0:
		return k.For.String()
	}
	return ""
}

// A List is what is to be at hand, each image once for each platform, in the
// order of its source. What was not understood of a workflow is in Unclear.
type List struct {
	Entries []Entry
	Unclear []string
}

// add adds e, unless it is there already: of two the first counts, and the
// groups of both.
func (l *List) add(e Entry) {
	for i := range l.Entries {
		if had := &l.Entries[i]; had.Name() == e.Name() && had.Platform == e.Platform {
			had.Groups = union(had.Groups, e.Groups)
			return
		}
	}
	l.Entries = append(l.Entries, e)
}

func union(a, b []string) []string {
	for _, s := range b {
		if !slices.Contains(a, s) {
			a = append(a, s)
		}
	}
	return a
}

// Only returns the entries of the groups named; all, where none is. A group
// that nothing belongs to is an error: somebody mistyped it.
func (l *List) Only(groups []string) ([]Entry, error) {
	if len(groups) == 0 {
		return l.Entries, nil
	}
	var some []Entry
	met := map[string]bool{}
	for _, e := range l.Entries {
		in := false
		for _, g := range groups {
			if slices.Contains(e.Groups, g) {
				in, met[g] = true, true
			}
		}
		if in {
			some = append(some, e)
		}
	}
	for _, g := range groups {
		if !met[g] {
			return nil, fault.Wrap("choose group", g, fault.User, "see which groups the list has", errors.New("no image of the list is in it"))
		}
	}
	return some, nil
}

// looksLikeTOML tells TOML from text: no line of text begins so.
var looksLikeTOML = regexp.MustCompile(`(?m)^[ \t]*(\[|[a-z_]+[ \t]*=)`)

// Parse reads a list: text with a reference in each line, or TOML. name is for
// messages.
//
//	# comment                                  [[image]]
//	quay.io/biocontainers/samtools:1.20        name = "quay.io/…"
//
// Where a line cannot be read, nothing is.
func Parse(name string, data []byte) (*List, error) {
	if looksLikeTOML.Match(data) {
		return parseTOML(name, data)
	}
	var l List
	n := 0
	for line := range strings.Lines(string(data)) {
		n++
		text, _, _ := strings.Cut(" "+line, " #")
		if text = strings.TrimSpace(text); text == "" {
			continue
		}
		at := fmt.Sprintf("%s:%d", name, n)
		e, err := newEntry(at, text)
		if err != nil {
			return nil, errList(at, err)
		}
		l.add(e)
	}
	return &l, nil
}

// newEntry takes a reference apart. Only registries' images are warmed: files
// are at hand.
func newEntry(at, text string) (Entry, error) {
	ref, err := imagecache.ParseReference(text)
	if err != nil {
		return Entry{}, err
	}
	if ref.Kind() != imagecache.Registry {
		return Entry{}, fmt.Errorf("%q is no image in a registry", text)
	}
	e := Entry{Ref: ref, From: at}
	return e, nil
}

func errList(at string, err error) error {
	return &fault.Error{Op: "read the list of images", Arg: at, Blame: fault.User, Err: err, Remedy: "correct it; nothing was done"}
}

// file is a list as TOML has it.
type file struct {
	Platforms []string         `toml:"platforms,omitempty"`
	Keep      string           `toml:"keep,omitempty"`
	Images    []image          `toml:"image"`
	Groups    map[string]group `toml:"group,omitempty"`
}

// image is [[image]]. What it leaves out the file says.
type image struct {
	Name      string   `toml:"name"`
	Platforms []string `toml:"platforms,omitempty"`
	Digest    string   `toml:"digest,omitempty"` // for one platform alone
	Keep      string   `toml:"keep,omitempty"`
	Groups    []string `toml:"groups,omitempty"`
}

// group is [group.NAME]: images that have the rest in common.
type group struct {
	Images    []string `toml:"images"`
	Platforms []string `toml:"platforms,omitempty"`
	Keep      string   `toml:"keep,omitempty"`
}

func parseTOML(name string, data []byte) (*List, error) {
	var f file
	meta, err := toml.Decode(string(data), &f)
	if err == nil && len(meta.Undecoded()) > 0 {
		err = fmt.Errorf("unknown key %s", meta.Undecoded()[0])
	}
	if err != nil {
		return nil, errList(name, err)
	}
	all := f.Images
	for _, g := range meta.Keys() { // in the order of the file
		if len(g) != 2 || g[0] != "group" {
			continue
		}
		in := f.Groups[g[1]]
		for _, text := range in.Images {
			all = append(all, image{Name: text, Platforms: in.Platforms, Keep: in.Keep, Groups: []string{g[1]}})
		}
	}
	var l List
	for _, im := range all {
		if err := l.addImage(name, f, im); err != nil {
			return nil, errList(name+": image "+im.Name, err)
		}
	}
	return &l, nil
}

// addImage adds im for each of its platforms.
func (l *List) addImage(at string, f file, im image) error {
	e, err := newEntry(at, im.Name)
	if err != nil {
		return err
	}
	e.Groups = im.Groups
	keep, platforms := im.Keep, im.Platforms
	if keep == "" {
		keep = f.Keep
	}
	if e.Keep, err = parseKeep(keep); err != nil {
		return err
	}
	if platforms == nil {
		platforms = f.Platforms
	}
	if len(platforms) == 0 {
		platforms = []string{""}
	}
	if im.Digest != "" {
		if len(platforms) > 1 {
			return errors.New("a digest is one platform's; this image is for several")
		}
		if e.Digest, err = store.ParseDigest(im.Digest); err != nil {
			return err
		}
	}
	for _, p := range platforms {
		if e.Platform = p; p != "" {
			known, err := imagecache.ParsePlatform(p)
			if err != nil {
				return err
			}
			e.Platform = known.String()
		}
		l.add(e)
	}
	return nil
}

// Merge adds what m has.
func (l *List) Merge(m *List) {
	for _, e := range m.Entries {
		l.add(e)
	}
	l.Unclear = append(l.Unclear, m.Unclear...)
}
