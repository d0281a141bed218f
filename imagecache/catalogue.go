package imagecache

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"regexp"
	"strings"
	"time"
	"unicode"

	"github.com/berth-hpc/berth/fault"
	"github.com/berth-hpc/berth/imagecache/store"
)

// An API is an interface for searching and for lists of tags that a kind of
// registry has beside the distribution specification's.
type API string

const (
	// APIAuto is Quay's at quay.io, Docker Hub's at docker.io, else none.
	APIAuto API = ""
	// APINone is the distribution specification alone.
	APINone API = "none"
	// APIQuay is that of quay.io and of Red Hat Quay: sizes, dates, search.
	APIQuay API = "quay"
	// APIDockerHub is that of hub.docker.com: sizes, dates, search.
	APIDockerHub API = "dockerhub"
	// APIHarbor is that of Harbor 2: search.
	APIHarbor API = "harbor"
)

func (h Host) api(registry string) API {
	switch {
	case h.API != APIAuto:
		return h.API
	case registry == dockerHub:
		return APIDockerHub
	case registry == "quay.io":
		return APIQuay
	}
	return APINone
}

// A Tag is a name for an image in a repository. What a registry does not tell
// is zero.
type Tag struct {
	Name    string       `json:"name"`
	Digest  store.Digest `json:"digest,omitzero"`
	Size    int64        `json:"size_bytes,omitzero"` // of the compressed layers
	Updated time.Time    `json:"updated,omitzero"`    // when it was pushed last
}

// A Found is a repository. What a registry does not tell is zero.
type Found struct {
	Name        string    `json:"name"` // as a reference has it, without a tag
	Description string    `json:"description,omitempty"`
	Stars       int64     `json:"stars,omitempty"`
	Pulls       int64     `json:"pulls,omitempty"` // or another measure of use
	Official    bool      `json:"official,omitempty"`
	Updated     time.Time `json:"updated,omitzero"`
}

// A Listing is what a registry has said. All text in it is fit to print on a
// terminal: what is no name is left out, and descriptions are one line.
type Listing[T any] struct {
	Entries []T
	Source  string // the host that answered
	API     API    // whose interface it was; APINone for the specification's
	// More says that entries beyond those that were wanted exist.
	More bool
	// Notes say in words what is not as it should be: which interface failed,
	// and why the list is not complete.
	Notes []string
}

// Bounds on what a registry can make us hold or ask for.
const (
	maxPages       = 1000
	maxNames       = 100_000
	maxQuery       = 4096 // bytes of a query that a registry gives for its next page
	maxDescription = 300  // runes
	pageSize       = 100  // of the registries' own interfaces
)

var (
	tagName        = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}$`)
	repositoryName = regexp.MustCompile(`^[a-z0-9]+([._-]+[a-z0-9]+)*(/[a-z0-9]+([._-]+[a-z0-9]+)*)*$`)
)

func isRepository(s string) bool { return len(s) <= 255 && repositoryName.MatchString(s) }

// A page is a part of a list.
type page[T any] struct {
	entries []T
	next    string // what asks for the next one, "" after the last
	note    string // why the list ends here, if not because it is complete
}

// A lister reads a list, page after page.
type lister[T any] struct {
	name func(T) string
	keep func(T) bool // nil keeps all
	want int          // how many to keep at least, if there are; 0 for all
	read func(ctx context.Context, e *endpoint, at string) (page[T], error)
}

// list reads from whoever of s answers the first page. Names come once, and
// whatever a registry does, the list ends.
func (l lister[T]) list(ctx context.Context, s *registrySource, at string) (*Listing[T], error) {
	all, seen := &Listing[T]{}, map[string]bool{}
	for range maxPages {
		p, err := l.page(ctx, s, at)
		if err != nil {
			return nil, err
		}
		fresh := l.add(all, p.entries, seen)
		all.Source = s.origin()
		if p.note != "" {
			all.Notes = append(all.Notes, p.note)
		}
		switch at = p.next; {
		case at == "":
			return all, nil
		case l.want > 0 && len(all.Entries) >= l.want:
			all.More = true
			return all, nil
		case len(seen) >= maxNames:
			return all.cut(fmt.Sprintf("it has more than %d names", maxNames)), nil
		case fresh == 0:
			return all.cut("it repeats itself"), nil
		case len(at) > maxQuery:
			return all.cut("it names its next page in a way that is too long"), nil
		}
	}
	return all.cut(fmt.Sprintf("it has more than %d pages", maxPages)), nil
}

// add appends what is new and wanted, and returns how many were new.
func (l lister[T]) add(all *Listing[T], entries []T, seen map[string]bool) (fresh int) {
	for _, e := range entries {
		name := l.name(e)
		if seen[name] || len(seen) >= maxNames {
			continue
		}
		seen[name] = true
		fresh++
		if l.keep == nil || l.keep(e) {
			all.Entries = append(all.Entries, e)
		}
	}
	return fresh
}

// page asks for one page. Who has answered the first is asked for the others:
// where pages begin is a host's own business.
func (l lister[T]) page(ctx context.Context, s *registrySource, at string) (p page[T], err error) {
	err = s.each(ctx, func(e *endpoint, last bool) error {
		ctx, cancel := shareOf(ctx, last)
		defer cancel()
		var err error
		if p, err = l.read(ctx, e, at); err != nil {
			return err
		}
		if len(p.entries) == 0 && e.mirror && s.served == nil {
			return fmt.Errorf("%s lists nothing", e.host)
		}
		s.served, s.endpoints = e, []*endpoint{e}
		return nil
	})
	return p, err
}

func (l *Listing[T]) cut(why string) *Listing[T] {
	l.Notes = append(l.Notes, fmt.Sprintf("the list of %s is not complete: %s", l.Source, why))
	return l
}

// Cut leaves n of the entries, all for 0, from number from on.
func (l *Listing[T]) Cut(from, n int) {
	if n > 0 && len(l.Entries) > from+n {
		l.Entries, l.More = l.Entries[:from+n], true
	}
	l.Entries = l.Entries[min(from, len(l.Entries)):]
}

// getJSON asks e for path and reads its answer, of at most limit bytes.
func getJSON(ctx context.Context, e *endpoint, path string, limit int64, into any) (http.Header, error) {
	resp, err := e.openAt(ctx, path, http.Header{"Accept": {"application/json"}})
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	raw, err := io.ReadAll(io.LimitReader(resp.Body, limit+1))
	switch {
	case err != nil:
		return nil, fmt.Errorf("read the answer of %s: %w", e.host, err)
	case int64(len(raw)) > limit:
		return nil, fmt.Errorf("the answer of %s has more than %d bytes", e.host, limit)
	}
	if err := json.Unmarshal(raw, into); err != nil {
		return nil, fmt.Errorf("the answer of %s is not a list in JSON", e.host)
	}
	return resp.Header, nil
}

// firstPlain asks for the first page of the specification's lists.
const firstPlain = "n=1000" // more is refused by most

// getPlain asks for a page of one of the specification's lists. Some registries
// refuse even firstPlain, and choose themselves if they are not asked for a
// number.
func getPlain(ctx context.Context, e *endpoint, path, at string, limit int64, into any) (next string, err error) {
	header, err := getJSON(ctx, e, path+"?"+at, limit, into)
	var status *statusError
	if at == firstPlain && errors.As(err, &status) && status.status == http.StatusBadRequest {
		header, err = getJSON(ctx, e, path, limit, into)
	}
	return nextQuery(header), err
}

// newAPISource asks the interface that the registry at host has of its own, as
// nobody: such interfaces do not know the logins with which images are pulled.
// There is another way to ask, so it is not tried for long.
func newAPISource(host string, api API, net Network) (*registrySource, error) {
	at, own := host, net.Hosts[host]
	if api == APIDockerHub && host == dockerHub {
		at = "hub.docker.com"
		if h, ok := net.Hosts[at]; ok {
			own = h
		}
	}
	net.Credentials, net.Hidden = nil, false
	e, err := newEndpoint(at, "", own, net)
	if err != nil {
		return nil, err
	}
	src := &registrySource{endpoints: []*endpoint{e}, retries: net.retries(), limit: orElse(net.MaxManifest, maxManifest)}
	src.retries.max = min(src.retries.max, 1)
	return src, nil
}

// ownWay says that api failed, and that the specification's interface was asked.
func ownWay(host string, err error) string {
	return fmt.Sprintf("%s was asked by the interface that all registries have, because its own failed: %s", host, oneLine(err.Error()))
}

// tidy makes a registry's words fit for a line of a table.
func tidy(s string) string {
	words := []rune(strings.Join(strings.Fields(s), " "))
	words = words[:min(len(words), maxDescription)]
	for i, r := range words {
		if !unicode.IsPrint(r) {
			words[i] = unicode.ReplacementChar
		}
	}
	return string(words)
}

// digestOrNone is a digest that a registry names; zero if it is none.
func digestOrNone(s string) store.Digest {
	d, err := store.ParseDigest(s)
	if err != nil {
		return store.Digest{}
	}
	return d
}

// sizeOrNone is a size that can be one.
func sizeOrNone(n int64) int64 { return max(n, 0) }

// timeOrNone reads RFC 3339; what is none is zero.
func timeOrNone(s string) time.Time {
	t, err := time.Parse(time.RFC3339, s)
	if err != nil {
		return time.Time{}
	}
	return t.UTC()
}

// secondsOrNone is a Unix time that can be shown.
func secondsOrNone(n int64) time.Time {
	if n <= 0 || n > 1<<33 {
		return time.Time{}
	}
	return time.Unix(n, 0).UTC()
}

// notListed gives a failed search its cause and remedy. Many registries list
// nothing to ordinary users.
func notListed(op, host string, err error) error {
	blame, remedy := diagnose(Reference{registry: host, repository: host}, err)
	var status *statusError
	if errors.As(err, &status) && status.status < 500 && status.status != http.StatusTooManyRequests {
		blame = fault.User
		remedy = fmt.Sprintf("%s lists its repositories to nobody, or not to you: log in with berth login %s, or name one: berth tags %s/NAME", host, host, host)
	}
	return &fault.Error{Op: op, Arg: host, Blame: blame, Remedy: remedy, Err: err}
}
