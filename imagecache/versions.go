package imagecache

import (
	"cmp"
	"slices"
	"strings"
)

// CompareTags orders tags by the versions in them, older first: numbers count as
// numbers (1.9 before 1.17), a pre-release comes before its release
// (1.0rc1, 1.0), and of one version the builds of Conda's packages go by their
// number (1.17--h00cdaf9_0, 1.17--hd87286a_1). Tags that do not begin with a
// number, after a "v", are no versions and come before all that are.
func CompareTags(a, b string) int {
	if c := cmp.Compare(versionRank(a), versionRank(b)); c != 0 {
		return c
	}
	if versionRank(a) == 0 {
		return -cmp.Compare(a, b)
	}
	versionA, buildA, _ := strings.Cut(a, "--")
	versionB, buildB, _ := strings.Cut(b, "--")
	return cmp.Or(
		compareVersions(versionA, versionB),
		compareNumbers(buildNumber(buildA), buildNumber(buildB)),
		cmp.Compare(a, b),
	)
}

// versionRank is 1 for a version, 0 for another name.
func versionRank(tag string) int {
	if tag = strings.TrimPrefix(tag, "v"); tag != "" && isDigit(tag[0]) {
		return 1
	}
	return 0
}

// buildNumber is what follows the last "_" of a build: Conda counts there the
// builds of one version.
func buildNumber(build string) string {
	return strings.Trim(build[strings.LastIndexByte(build, '_')+1:], " ")
}

func compareVersions(a, b string) int {
	as, bs := versionParts(a), versionParts(b)
	for i := range max(len(as), len(bs)) {
		if c := compareParts(partAt(as, i), partAt(bs, i)); c != 0 {
			return c
		}
	}
	return 0
}

func partAt(parts []string, i int) string {
	if i < len(parts) {
		return parts[i]
	}
	return ""
}

// versionParts cuts a version into its numbers and words.
func versionParts(version string) []string {
	var parts []string
	version = strings.TrimPrefix(strings.ToLower(version), "v")
	for field := range strings.FieldsFuncSeq(version, func(r rune) bool { return r == '.' || r == '_' || r == '-' }) {
		begin := 0
		for i := 1; i <= len(field); i++ {
			if i == len(field) || isDigit(field[i]) != isDigit(field[i-1]) {
				parts = append(parts, field[begin:i])
				begin = i
			}
		}
	}
	return parts
}

// compareParts orders pre-release words before the end of a version, that
// before other words, and these before numbers.
func compareParts(a, b string) int {
	if c := cmp.Compare(partRank(a), partRank(b)); c != 0 {
		return c
	}
	if partRank(a) == partNumber {
		return compareNumbers(a, b)
	}
	return cmp.Compare(a, b)
}

const (
	partEarly = iota
	partEnd
	partWord
	partNumber
)

func partRank(part string) int {
	switch {
	case part == "":
		return partEnd
	case isDigit(part[0]):
		return partNumber
	case slices.Contains([]string{"alpha", "beta", "rc", "pre", "dev", "snapshot", "preview"}, part):
		return partEarly
	}
	return partWord
}

// compareNumbers compares decimal numbers of any length; what is none is less.
func compareNumbers(a, b string) int {
	a, b = strings.TrimLeft(a, "0"), strings.TrimLeft(b, "0")
	return cmp.Or(cmp.Compare(len(a), len(b)), cmp.Compare(a, b))
}

func isDigit(c byte) bool { return c >= '0' && c <= '9' }
