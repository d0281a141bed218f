package imagecache

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/berth-hpc/berth/fault"
	"github.com/berth-hpc/berth/imagecache/store"
)

// Tags lists the tags of ref's repository, newest version first (see
// CompareTags), by the registry's own interface where it has one, which tells
// sizes and dates; else, and where that fails, by that of the distribution
// specification, with the user's login. A registry that has mirrors is asked as
// a pull asks: the mirrors first, by the specification.
func Tags(ctx context.Context, ref Reference, net Network) (*Listing[Tag], error) {
	if ref.kind != Registry {
		return nil, &fault.Error{
			Op: "list tags", Arg: quote(ref.String()), Blame: fault.User, Err: errors.New("it is a file or folder"),
			Remedy: "name a repository of a registry, for example quay.io/biocontainers/samtools",
		}
	}
	ref.tag, ref.digest = "", store.Digest{}
	all, err := listTags(ctx, ref, net)
	if err != nil {
		return nil, imageFault("list the tags of", ref, err)
	}
	slices.SortFunc(all.Entries, func(a, b Tag) int { return -CompareTags(a.Name, b.Name) })
	return all, nil
}

func listTags(ctx context.Context, ref Reference, net Network) (*Listing[Tag], error) {
	own := net.Hosts[ref.registry]
	api := own.api(ref.registry)
	read, ok := tagInterfaces(ref.repository)[api]
	if !ok || len(own.Mirrors) > 0 {
		return plainTags(ctx, ref, net)
	}
	src, err := newAPISource(ref.registry, api, net)
	if err != nil {
		return nil, err
	}
	half, cancel := shareOf(ctx, false)
	defer cancel()
	all, apiErr := lister[Tag]{name: Tag.name, read: read}.list(half, src, "1")
	if apiErr == nil {
		all.API = api
		return all, nil
	}
	if all, err = plainTags(ctx, ref, net); err == nil {
		all.Notes = append([]string{ownWay(ref.registry, apiErr)}, all.Notes...)
	}
	return all, err
}

func (t Tag) name() string { return t.Name }

// A readTags reads one page of tags.
type readTags = func(ctx context.Context, e *endpoint, at string) (page[Tag], error)

// tagInterfaces are what registries have of their own.
func tagInterfaces(repository string) map[API]readTags {
	return map[API]readTags{
		APIQuay: func(ctx context.Context, e *endpoint, at string) (page[Tag], error) {
			return quayTags(ctx, e, repository, at)
		},
		APIDockerHub: func(ctx context.Context, e *endpoint, at string) (page[Tag], error) {
			return hubTags(ctx, e, repository, at)
		},
	}
}

// plainTags asks for /v2/NAME/tags/list. Where pages go on is in a header; of
// the address in it only the query counts, so that it leads nowhere else.
func plainTags(ctx context.Context, ref Reference, net Network) (*Listing[Tag], error) {
	src, err := newRegistrySource(ref, net)
	if err != nil {
		return nil, err
	}
	read := func(ctx context.Context, e *endpoint, at string) (page[Tag], error) {
		var answer struct{ Tags []string }
		next, err := getPlain(ctx, e, e.pathOf("tags/list"), at, src.limit, &answer)
		p := page[Tag]{next: next}
		for _, name := range answer.Tags {
			if tagName.MatchString(name) {
				p.entries = append(p.entries, Tag{Name: name})
			}
		}
		return p, err
	}
	all, err := lister[Tag]{name: Tag.name, read: read}.list(ctx, src, firstPlain)
	if err == nil {
		all.API = APINone
	}
	return all, err
}

var nextLink = regexp.MustCompile(`<([^>]*)>\s*;[^,<]*\brel="?next"?`)

// nextQuery is the query of the next page, as a Link header has it (RFC 8288).
func nextQuery(h http.Header) string {
	m := nextLink.FindStringSubmatch(strings.Join(h.Values("Link"), ", "))
	if m == nil {
		return ""
	}
	target, err := url.Parse(m[1])
	if err != nil {
		return ""
	}
	return target.Query().Encode()
}

// nextPage is the number after at.
func nextPage(at string) string {
	n, _ := strconv.Atoi(at)
	return strconv.Itoa(n + 1)
}

// quayTags reads a page as Quay has it (its endpoints/api/tag.py).
func quayTags(ctx context.Context, e *endpoint, repository, at string) (page[Tag], error) {
	var answer struct {
		Tags []struct {
			Name   string
			Digest string `json:"manifest_digest"`
			Size   int64
			Start  int64 `json:"start_ts"`
		}
		More bool `json:"has_additional"`
	}
	path := fmt.Sprintf("/api/v1/repository/%s/tag/?limit=%d&page=%s&onlyActiveTags=true", repository, pageSize, at)
	if _, err := getJSON(ctx, e, path, maxManifest, &answer); err != nil {
		return page[Tag]{}, err
	}
	var p page[Tag]
	for _, t := range answer.Tags {
		if tagName.MatchString(t.Name) {
			p.entries = append(p.entries, Tag{t.Name, digestOrNone(t.Digest), sizeOrNone(t.Size), secondsOrNone(t.Start)})
		}
	}
	if answer.More {
		p.next = nextPage(at)
	}
	return p, nil
}

// hubTags reads a page as Docker Hub has it. The address that it gives for the
// next page is only taken as the word that there is one.
func hubTags(ctx context.Context, e *endpoint, repository, at string) (page[Tag], error) {
	var answer struct {
		Next    string
		Results []struct {
			Name    string
			Digest  string
			Size    int64  `json:"full_size"`
			Pushed  string `json:"tag_last_pushed"`
			Updated string `json:"last_updated"`
		}
	}
	namespace, name, _ := strings.Cut(repository, "/")
	path := fmt.Sprintf("/v2/namespaces/%s/repositories/%s/tags?page_size=%d&page=%s", namespace, url.PathEscape(name), pageSize, at)
	if _, err := getJSON(ctx, e, path, maxManifest, &answer); err != nil {
		return page[Tag]{}, err
	}
	var p page[Tag]
	for _, t := range answer.Results {
		if !tagName.MatchString(t.Name) {
			continue
		}
		pushed := timeOrNone(t.Pushed)
		if pushed.IsZero() {
			pushed = timeOrNone(t.Updated)
		}
		p.entries = append(p.entries, Tag{t.Name, digestOrNone(t.Digest), sizeOrNone(t.Size), pushed})
	}
	if answer.Next != "" {
		p.next = nextPage(at)
	}
	return p, nil
}
