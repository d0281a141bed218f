package server

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// A Catalogue answers, in front of a registry, as Quay, Docker Hub and Harbor do
// when they are asked for repositories and tags by their own interfaces. The
// shapes of the answers are theirs: Quay's endpoints/api, hub.docker.com's v2,
// Harbor's swagger.
type Catalogue struct {
	Repositories []Repository
	PageSize     int // however many are asked for; 0 means 2
}

// A Repository is one that a Catalogue knows of.
type Repository struct {
	Name, Description string // Name is NAMESPACE/NAME
	Stars, Pulls      int64
	Official          bool
	Tags              []Tag
}

// A Tag of a Repository.
type Tag struct {
	Name, Digest string
	Size         int64
	Pushed       time.Time
}

type object = map[string]any

// Wrap puts the interfaces in front of a registry.
func (c Catalogue) Wrap(next http.Handler) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /api/v1/find/repositories", c.quaySearch)
	mux.HandleFunc("GET /api/v1/repository", c.quayNamespace)
	mux.HandleFunc("GET /api/v1/repository/{namespace}/{name}/tag/", c.quayTags)
	mux.HandleFunc("GET /v2/search/repositories/", c.hubSearch)
	mux.HandleFunc("GET /v2/namespaces/{namespace}/repositories", c.hubNamespace)
	mux.HandleFunc("GET /v2/namespaces/{namespace}/repositories/{name}/tags", c.hubTags)
	mux.HandleFunc("GET /api/v2.0/search", c.harborSearch)
	mux.Handle("/", next)
	return mux
}

// find returns the repositories that have term in name or description, and are
// in namespace unless that is "".
func (c Catalogue) find(namespace, term string) []Repository {
	var all []Repository
	for _, r := range c.Repositories {
		if strings.HasPrefix(r.Name, namespace) && strings.Contains(r.Name+" "+r.Description, term) {
			all = append(all, r)
		}
	}
	return all
}

// cut returns page number n of all, and whether more follow.
func cut[T any](all []T, n, size int) ([]T, bool) {
	if size == 0 {
		size = 2
	}
	from := min(max(n-1, 0)*size, len(all))
	to := min(from+size, len(all))
	return all[from:to], to < len(all)
}

func pageOf(req *http.Request) int {
	n, _ := strconv.Atoi(req.FormValue("page"))
	return max(n, 1)
}

func respond(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(v)
}

// quayPages is how many pages Quay shows of what it finds.
const quayPages = 10

func (c Catalogue) quaySearch(w http.ResponseWriter, req *http.Request) {
	n := min(pageOf(req), quayPages)
	part, more := cut(c.find("", req.FormValue("query")), n, c.PageSize)
	results := []object{}
	for _, r := range part {
		namespace, name, _ := strings.Cut(r.Name, "/")
		results = append(results, object{
			"kind": "repository", "title": "repo", "name": name, "description": r.Description, "is_public": true,
			"namespace": object{"title": "org", "kind": "organization", "name": namespace},
			"score":     4.0, "href": "/repository/" + r.Name, "last_modified": lastPush(r), "stars": r.Stars, "popularity": float64(r.Pulls),
		})
	}
	respond(w, object{"results": results, "has_additional": more, "page": n, "page_size": len(part), "start_index": 0})
}

func lastPush(r Repository) any {
	if len(r.Tags) == 0 {
		return nil
	}
	return r.Tags[0].Pushed.Unix()
}

func (c Catalogue) quayNamespace(w http.ResponseWriter, req *http.Request) {
	namespace := req.FormValue("namespace")
	if namespace == "" {
		http.Error(w, `{"error_message":"namespace, starred or public are required for this API call"}`, http.StatusBadRequest)
		return
	}
	n := 1
	if token := req.FormValue("next_page"); token != "" {
		n, _ = strconv.Atoi(strings.TrimPrefix(token, "gAAAA=="))
	}
	part, more := cut(c.find(namespace+"/", ""), n, c.PageSize)
	repositories := []object{}
	for _, r := range part {
		_, name, _ := strings.Cut(r.Name, "/")
		repositories = append(repositories, object{
			"namespace": namespace, "name": name, "description": r.Description, "is_public": true, "kind": "image", "state": "NORMAL",
			"last_modified": lastPush(r), "popularity": float64(r.Pulls), "is_starred": false,
		})
	}
	body := object{"repositories": repositories}
	if more {
		body["next_page"] = fmt.Sprintf("gAAAA==%d", n+1)
	}
	respond(w, body)
}

// tagsOf answers 404 unless it is known.
func (c Catalogue) tagsOf(w http.ResponseWriter, req *http.Request) ([]Tag, bool) {
	for _, r := range c.Repositories {
		if r.Name == req.PathValue("namespace")+"/"+req.PathValue("name") {
			return r.Tags, true
		}
	}
	http.Error(w, `{"message":"not found"}`, http.StatusNotFound)
	return nil, false
}

func (c Catalogue) quayTags(w http.ResponseWriter, req *http.Request) {
	all, ok := c.tagsOf(w, req)
	if !ok {
		return
	}
	part, more := cut(all, pageOf(req), c.PageSize)
	tags := []object{}
	for _, t := range part {
		tags = append(tags, object{
			"name": t.Name, "reversion": false, "start_ts": t.Pushed.Unix(), "manifest_digest": t.Digest, "is_manifest_list": false,
			"size": t.Size, "last_modified": t.Pushed.Format(time.RFC1123Z),
		})
	}
	respond(w, object{"tags": tags, "page": pageOf(req), "has_additional": more})
}

// hubPage answers with a page as Docker Hub does.
func hubPage(w http.ResponseWriter, req *http.Request, count int, results []object, more bool) {
	body := object{"count": count, "next": nil, "previous": nil, "results": results}
	if more {
		body["next"] = fmt.Sprintf("https://hub.docker.com%s?page=%d", req.URL.Path, pageOf(req)+1)
	}
	respond(w, body)
}

func (c Catalogue) hubSearch(w http.ResponseWriter, req *http.Request) {
	all := c.find("", req.FormValue("query"))
	part, more := cut(all, pageOf(req), c.PageSize)
	results := []object{}
	for _, r := range part {
		results = append(results, object{
			"repo_name": strings.TrimPrefix(r.Name, "library/"), "short_description": r.Description, "star_count": r.Stars,
			"pull_count": r.Pulls, "repo_owner": "", "is_automated": false, "is_official": r.Official,
		})
	}
	hubPage(w, req, len(all), results, more)
}

func (c Catalogue) hubNamespace(w http.ResponseWriter, req *http.Request) {
	all := c.find(req.PathValue("namespace")+"/", req.FormValue("name"))
	part, more := cut(all, pageOf(req), c.PageSize)
	results := []object{}
	for _, r := range part {
		namespace, name, _ := strings.Cut(r.Name, "/")
		results = append(results, object{
			"name": name, "namespace": namespace, "repository_type": "image", "status": 1, "is_private": false, "description": r.Description,
			"star_count": r.Stars, "pull_count": r.Pulls, "last_updated": "2026-01-02T03:04:05.678901Z",
		})
	}
	hubPage(w, req, len(all), results, more)
}

func (c Catalogue) hubTags(w http.ResponseWriter, req *http.Request) {
	all, ok := c.tagsOf(w, req)
	if !ok {
		return
	}
	part, more := cut(all, pageOf(req), c.PageSize)
	results := []object{}
	for _, t := range part {
		pushed := t.Pushed.UTC().Format("2006-01-02T15:04:05.000000Z")
		results = append(results, object{
			"name": t.Name, "full_size": t.Size, "last_updated": pushed, "tag_last_pushed": pushed, "digest": t.Digest, "v2": true,
			"images": []object{{"architecture": "amd64", "os": "linux", "variant": nil, "size": t.Size, "digest": t.Digest}},
		})
	}
	hubPage(w, req, len(all), results, more)
}

func (c Catalogue) harborSearch(w http.ResponseWriter, req *http.Request) {
	repositories := []object{}
	for _, r := range c.find("", req.FormValue("q")) {
		project, _, _ := strings.Cut(r.Name, "/")
		repositories = append(repositories, object{
			"project_id": 1, "project_name": project, "project_public": true, "repository_name": r.Name,
			"pull_count": r.Pulls, "artifact_count": len(r.Tags),
		})
	}
	respond(w, object{"project": []object{}, "repository": repositories, "chart": nil})
}
