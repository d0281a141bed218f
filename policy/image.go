package policy

import (
	"errors"
	"fmt"
	"strings"
)

// An Image is what rules know of an image: where it comes from.
type Image struct {
	Registry   string // "quay.io", "localhost:5000"
	Repository string // "biocontainers/samtools"
}

// String returns what patterns are compared with.
func (im Image) String() string { return canonical(im.Registry) + "/" + im.Repository }

// canonical is the form of a registry's name that all its spellings share:
// those that lead to the same server must not lead round a rule.
func canonical(registry string) string {
	registry = strings.TrimSuffix(strings.ToLower(registry), ":443")
	host, port, _ := strings.Cut(registry, ":")
	if strings.HasPrefix(registry, "[") {
		host, port = registry, ""
	}
	host = strings.TrimRight(host, ".")
	switch host {
	case "index.docker.io", "registry-1.docker.io":
		host = "docker.io"
	}
	if port = strings.TrimLeft(port, "0"); port == "" || port == "443" {
		return host
	}
	return host + ":" + port
}

// Matches compares an image with a pattern: REGISTRY or REGISTRY/REPOSITORY,
// where * stands for any characters, of a repository also for slashes, and ?
// for one. Without a repository all of that registry match.
func (im Image) Matches(pattern string) bool {
	registry, repository, both := strings.Cut(pattern, "/")
	return match(canonicalPattern(registry), canonical(im.Registry)) && (!both || match(repository, im.Repository))
}

// canonicalPattern leaves what a pattern's * may stand for alone.
func canonicalPattern(p string) string {
	if strings.ContainsAny(p, "*?") {
		return strings.ToLower(p)
	}
	return canonical(p)
}

func (im Image) matchesAny(patterns []string) bool {
	for _, p := range patterns {
		if im.Matches(p) {
			return true
		}
	}
	return false
}

// CheckPattern says what is wrong with a pattern, nil where nothing is.
func CheckPattern(p string) error {
	registry, repository, both := strings.Cut(p, "/")
	switch {
	case registry == "" || both && repository == "":
		return errors.New("write REGISTRY, or REGISTRY/REPOSITORY, with * for any characters")
	case strings.Contains(p, "://"):
		return errors.New("leave out what ends in ://")
	case both && strings.ContainsAny(repository, ":@"):
		return errors.New("rules are for repositories: leave out the tag or digest")
	case repository != strings.ToLower(repository):
		return fmt.Errorf("the names of repositories are lower case")
	case !both && strings.Trim(registry, "*?") != "" && !strings.ContainsAny(registry, "*?.:") && registry != "localhost":
		return fmt.Errorf("%s is read as the name of a registry; write docker.io/library/%s for that of an image", registry, registry)
	}
	return nil
}

// match compares s with a pattern of *, ? and characters that stand for
// themselves. It takes len(pattern)*len(s) steps at most.
func match(pattern, s string) bool {
	p, i := 0, 0
	star, from := -1, 0 // the last *, and where what it stands for ends
	for i < len(s) {
		switch {
		case p < len(pattern) && pattern[p] == '*':
			star, from = p, i
			p++
		case p < len(pattern) && (pattern[p] == '?' || pattern[p] == s[i]):
			p++
			i++
		case star >= 0:
			from++
			p, i = star+1, from
		default:
			return false
		}
	}
	return strings.Trim(pattern[p:], "*") == ""
}
