package imagecache

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"strings"

	"github.com/google/go-containerregistry/pkg/name"

	"github.com/berth-hpc/berth/fault"
)

// A Query says what Search looks for.
type Query struct {
	Registry  string // its host; "" is docker.io
	Namespace string // the first part of the repositories' names; "" for all
	Term      string // in name or description; "" for all
	// Skip leaves out so many at the beginning, and Limit, unless 0, is how
	// many follow at most.
	Skip, Limit int
}

// Search looks for repositories: by the registry's own interface where it has
// one; else, and where that fails, in the list of all repositories that the
// distribution specification has, with the user's login. That list is asked
// for at the registry's mirrors first.
func Search(ctx context.Context, q Query, net Network) (*Listing[Found], error) {
	if q.Registry == "" {
		q.Registry = dockerHub
	}
	if err := q.check(); err != nil {
		return nil, fault.Wrap("search", quote(q.Registry), fault.User, "write it as berth search TERM [--registry HOST] [--namespace NAME]", err)
	}
	all, err := q.search(ctx, net)
	if err != nil {
		return nil, notListed("search", q.Registry, err)
	}
	all.Cut(q.Skip, q.Limit)
	return all, nil
}

func (q Query) check() error {
	switch {
	case !isHost(q.Registry):
		return errors.New("the registry's name is no host, with or without a port")
	case q.Namespace != "" && !isRepository(q.Namespace):
		return fmt.Errorf("%s is no namespace", quote(q.Namespace))
	case q.Namespace == "" && q.Term == "":
		return errors.New("neither a word to look for nor a namespace")
	}
	return nil
}

func (q Query) search(ctx context.Context, net Network) (*Listing[Found], error) {
	api := net.Hosts[q.Registry].api(q.Registry)
	read, at := q.ownInterface(api)
	if read == nil {
		return q.catalog(ctx, net)
	}
	l := q.lister(read)
	if api != APIQuay || q.Namespace == "" {
		l.keep = q.inNamespace // it has looked for the term
	}
	src, err := newAPISource(q.Registry, api, net)
	if err != nil {
		return nil, err
	}
	half, cancel := shareOf(ctx, false)
	defer cancel()
	all, apiErr := l.list(half, src, at)
	if apiErr == nil {
		all.API = api
		return all, nil
	}
	if all, err = q.catalog(ctx, net); err != nil {
		return nil, fmt.Errorf("%w; its list of all repositories: %s", apiErr, oneLine(err.Error()))
	}
	all.Notes = append([]string{ownWay(q.Registry, apiErr)}, all.Notes...)
	return all, nil
}

// A readFound reads one page of repositories.
type readFound = func(ctx context.Context, e *endpoint, at string) (page[Found], error)

func (q Query) lister(read readFound) lister[Found] {
	l := lister[Found]{name: func(f Found) string { return f.Name }, keep: q.wants, read: read}
	if q.Limit > 0 {
		l.want = q.Skip + q.Limit + 1
	}
	return l
}

// inNamespace reports whether f is where it was looked for.
func (q Query) inNamespace(f Found) bool {
	return q.Namespace == "" || strings.HasPrefix(f.Name, q.Registry+"/"+q.Namespace+"/")
}

// wants reports whether f is what was asked for. It is for lists that nobody has
// searched: who searches finds more than what has the term in so many letters.
func (q Query) wants(f Found) bool {
	words := strings.TrimPrefix(f.Name, q.Registry+"/") + "\n" + f.Description
	return q.inNamespace(f) && strings.Contains(strings.ToLower(words), strings.ToLower(q.Term))
}

// ownInterface returns what reads the pages of an interface, and its first.
func (q Query) ownInterface(api API) (readFound, string) {
	switch api {
	case APIQuay:
		if q.Namespace != "" {
			return q.quayNamespace, ""
		}
		return q.quaySearch, "1"
	case APIDockerHub:
		if q.Namespace != "" {
			return q.hubNamespace, "1"
		}
		return q.hubSearch, "1"
	case APIHarbor:
		return q.harborSearch, ""
	}
	return nil, ""
}

// found is one repository; ok is false for what is no name of one.
func (q Query) found(repository, description string) (f Found, ok bool) {
	return Found{Name: q.Registry + "/" + repository, Description: tidy(description)}, isRepository(repository)
}

// catalog asks for /v2/_catalog, of mirrors too: there the names have a prefix.
func (q Query) catalog(ctx context.Context, net Network) (*Listing[Found], error) {
	src, err := newRegistrySource(Reference{registry: q.Registry, repository: strings.TrimPrefix(q.Namespace+"/x", "/")}, net)
	if err != nil {
		return nil, err
	}
	prefixes := map[*endpoint]string{}
	for _, e := range src.endpoints {
		prefixes[e] = strings.TrimSuffix(e.repo.RepositoryStr(), src.endpoints[len(src.endpoints)-1].repo.RepositoryStr())
		e.scopes = []string{name.Registry{}.Scope("*")}
	}
	read := func(ctx context.Context, e *endpoint, at string) (page[Found], error) {
		var answer struct{ Repositories []string }
		next, err := getPlain(ctx, e, "/v2/_catalog", at, src.limit, &answer)
		p := page[Found]{next: next}
		for _, full := range answer.Repositories {
			repository, ok := strings.CutPrefix(full, prefixes[e])
			if f, is := q.found(repository, ""); ok && is {
				p.entries = append(p.entries, f)
			}
		}
		return p, err
	}
	all, err := q.lister(read).list(ctx, src, firstPlain)
	if err == nil {
		all.API = APINone
	}
	return all, err
}

// quaySearch reads a page of what Quay finds (its endpoints/api/search.py). It
// shows a limited number of pages, and the last for all that follow.
func (q Query) quaySearch(ctx context.Context, e *endpoint, at string) (page[Found], error) {
	var answer struct {
		Results []struct {
			Kind        string
			Namespace   struct{ Name string }
			Name        string
			Description string
			Updated     int64 `json:"last_modified"`
			Stars       int64
			Popularity  float64
		}
		More bool `json:"has_additional"`
		Page int
	}
	path := fmt.Sprintf("/api/v1/find/repositories?query=%s&page=%s", url.QueryEscape(q.Term), at)
	if _, err := getJSON(ctx, e, path, maxManifest, &answer); err != nil {
		return page[Found]{}, err
	}
	if fmt.Sprint(answer.Page) != at {
		return page[Found]{note: fmt.Sprintf("%s shows no more than this; a longer word or a namespace finds the rest", e.host)}, nil
	}
	var p page[Found]
	for _, r := range answer.Results {
		f, ok := q.found(r.Namespace.Name+"/"+r.Name, r.Description)
		if !ok || r.Kind != "repository" {
			continue
		}
		f.Stars, f.Pulls, f.Updated = r.Stars, int64(r.Popularity), secondsOrNone(r.Updated)
		p.entries = append(p.entries, f)
	}
	if answer.More {
		p.next = nextPage(at)
	}
	return p, nil
}

// quayNamespace reads a page of a namespace's repositories
// (endpoints/api/repository.py).
func (q Query) quayNamespace(ctx context.Context, e *endpoint, at string) (page[Found], error) {
	var answer struct {
		Repositories []struct {
			Namespace, Name, Description string
			Updated                      int64 `json:"last_modified"`
			Popularity                   float64
		}
		Next string `json:"next_page"`
	}
	path := "/api/v1/repository?public=true&last_modified=true&popularity=true&namespace=" + url.QueryEscape(q.Namespace)
	if at != "" {
		path += "&next_page=" + url.QueryEscape(at)
	}
	if _, err := getJSON(ctx, e, path, maxManifest, &answer); err != nil {
		return page[Found]{}, err
	}
	p := page[Found]{next: answer.Next}
	for _, r := range answer.Repositories {
		f, ok := q.found(r.Namespace+"/"+r.Name, r.Description)
		if !ok {
			continue
		}
		f.Pulls, f.Updated = int64(r.Popularity), secondsOrNone(r.Updated)
		p.entries = append(p.entries, f)
	}
	return p, nil
}

// hubSearch reads a page of what Docker Hub finds. Official images have no
// namespace there.
func (q Query) hubSearch(ctx context.Context, e *endpoint, at string) (page[Found], error) {
	var answer struct {
		Next    string
		Results []struct {
			Name        string `json:"repo_name"`
			Description string `json:"short_description"`
			Stars       int64  `json:"star_count"`
			Pulls       int64  `json:"pull_count"`
			Official    bool   `json:"is_official"`
		}
	}
	path := fmt.Sprintf("/v2/search/repositories/?query=%s&page_size=%d&page=%s", url.QueryEscape(q.Term), pageSize, at)
	if _, err := getJSON(ctx, e, path, maxManifest, &answer); err != nil {
		return page[Found]{}, err
	}
	var p page[Found]
	for _, r := range answer.Results {
		if !strings.Contains(r.Name, "/") {
			r.Name = "library/" + r.Name
		}
		f, ok := q.found(r.Name, r.Description)
		if !ok {
			continue
		}
		f.Stars, f.Pulls, f.Official = r.Stars, r.Pulls, r.Official
		p.entries = append(p.entries, f)
	}
	if answer.Next != "" {
		p.next = nextPage(at)
	}
	return p, nil
}

// hubNamespace reads a page of a namespace's repositories.
func (q Query) hubNamespace(ctx context.Context, e *endpoint, at string) (page[Found], error) {
	var answer struct {
		Next    string
		Results []struct {
			Name, Description string
			Stars             int64  `json:"star_count"`
			Pulls             int64  `json:"pull_count"`
			Updated           string `json:"last_updated"`
		}
	}
	path := fmt.Sprintf("/v2/namespaces/%s/repositories?name=%s&page_size=%d&page=%s", url.PathEscape(q.Namespace), url.QueryEscape(q.Term), pageSize, at)
	if _, err := getJSON(ctx, e, path, maxManifest, &answer); err != nil {
		return page[Found]{}, err
	}
	var p page[Found]
	for _, r := range answer.Results {
		f, ok := q.found(q.Namespace+"/"+r.Name, r.Description)
		if !ok {
			continue
		}
		f.Stars, f.Pulls, f.Updated = r.Stars, r.Pulls, timeOrNone(r.Updated)
		p.entries = append(p.entries, f)
	}
	if answer.Next != "" {
		p.next = nextPage(at)
	}
	return p, nil
}

// harborSearch reads what Harbor finds, in one answer.
func (q Query) harborSearch(ctx context.Context, e *endpoint, _ string) (page[Found], error) {
	var answer struct {
		Repository []struct {
			Name  string `json:"repository_name"`
			Pulls int64  `json:"pull_count"`
		}
	}
	term := q.Term
	if term == "" {
		term = q.Namespace
	}
	if _, err := getJSON(ctx, e, "/api/v2.0/search?q="+url.QueryEscape(term), maxManifest, &answer); err != nil {
		return page[Found]{}, err
	}
	var p page[Found]
	for _, r := range answer.Repository {
		if f, ok := q.found(r.Name, ""); ok {
			f.Pulls = r.Pulls
			p.entries = append(p.entries, f)
		}
	}
	return p, nil
}
