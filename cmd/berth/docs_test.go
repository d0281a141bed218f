package main

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// What documents say of tests has to be true: each test that one names is
// there, or for a name that ends in … one that begins so.
func TestDocumentedTestsExist(t *testing.T) {
	tests := testsOf(t)
	documents, err := filepath.Glob(filepath.Join(root, "docs", "*.md"))
	if err != nil || len(documents) < 5 {
		t.Fatalf("%q, %v", documents, err)
	}
	named := 0
	for _, path := range documents {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range namedTests(string(text)) {
			named++
			if !isTest(tests, name) {
				t.Errorf("%s names %s, which is no test", filepath.Base(path), name)
			}
		}
	}
	if named < 100 {
		t.Errorf("only %d tests were found in the documents: is the search still right?", named)
	}
}

// A decision is known by its number.
func TestDecisionsHaveNumbersOfTheirOwn(t *testing.T) {
	text, err := os.ReadFile(filepath.Join(root, "docs", "decisions.md"))
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	for _, m := range regexp.MustCompile(`(?m)^### (\d+)\. `).FindAllStringSubmatch(string(text), -1) {
		if seen[m[1]] {
			t.Errorf("two decisions are number %s", m[1])
		}
		seen[m[1]] = true
	}
	if len(seen) < 50 {
		t.Errorf("only %d decisions were found", len(seen))
	}
}

// Every document is found from README.md, and each link in them leads somewhere:
// to a file of the repository, and in a document to a heading that it has.
func TestDocumentsLinkToEachOther(t *testing.T) {
	found, links := map[string]bool{}, 0
	var visit func(path string)
	visit = func(path string) {
		if found[path] {
			return
		}
		found[path] = true
		for _, target := range linksOf(t, path) {
			links++
			name, anchor, _ := strings.Cut(target, "#")
			to := path
			if name != "" {
				to = filepath.Join(filepath.Dir(path), name)
			}
			switch _, err := os.Stat(filepath.Join(root, to)); {
			case err != nil:
				t.Errorf("%s: the link %s leads nowhere", path, target)
			case filepath.Ext(to) == ".md":
				if anchor != "" && !headings(t, to)[anchor] {
					t.Errorf("%s: %s has no heading for the link %s", path, to, target)
				}
				visit(to)
			}
		}
	}
	visit("README.md")
	documents, err := filepath.Glob(filepath.Join(root, "docs", "*.md"))
	if err != nil || links < 50 {
		t.Fatalf("%d links, %v", links, err)
	}
	for _, path := range documents {
		if name := filepath.Join("docs", filepath.Base(path)); !found[name] {
			t.Errorf("no way leads from README.md to %s", name)
		}
	}
}

// prose is a document without its blocks of code, fenced or indented.
func prose(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(root, path))
	if err != nil {
		t.Fatal(err)
	}
	return regexp.MustCompile("(?ms)^```.*?^```$|^    .*?$").ReplaceAllString(string(text), "")
}

// linksOf returns where a document's links lead, but for those to other sites.
func linksOf(t *testing.T, path string) (targets []string) {
	t.Helper()
	text := regexp.MustCompile("`[^`\n]*`").ReplaceAllString(prose(t, path), "code")
	for _, m := range regexp.MustCompile(`\]\(([^)\s]+)\)`).FindAllStringSubmatch(text, -1) {
		if !strings.Contains(m[1], "://") {
			targets = append(targets, m[1])
		}
	}
	return targets
}

// headings are a document's, as links name them.
func headings(t *testing.T, path string) map[string]bool {
	t.Helper()
	anchors := map[string]bool{}
	for _, m := range regexp.MustCompile(`(?m)^#+ +(.+?) *$`).FindAllStringSubmatch(prose(t, path), -1) {
		name := regexp.MustCompile(`[^\p{L}\p{N} _-]`).ReplaceAllString(strings.ToLower(m[1]), "")
		anchors[strings.ReplaceAll(name, " ", "-")] = true
	}
	return anchors
}

// namedTests finds the names of tests and fuzz targets, of TestX{A,B} both.
func namedTests(text string) (names []string) {
	for _, m := range regexp.MustCompile(`\b((?:Test|Fuzz)[A-Z]\w*)(…|\*|\{[A-Za-z,]+\})?`).FindAllStringSubmatch(text, -1) {
		switch name, rest := m[1], m[2]; {
		case strings.HasPrefix(rest, "{"):
			for _, end := range strings.Split(strings.Trim(rest, "{}"), ",") {
				names = append(names, name+end)
			}
		case rest != "":
			names = append(names, name+"…")
		default:
			names = append(names, name)
		}
	}
	return names
}

func isTest(tests map[string]bool, name string) bool {
	begin, open := strings.CutSuffix(name, "…")
	for test := range tests {
		if test == begin || open && strings.HasPrefix(test, begin) {
			return true
		}
	}
	return false
}

// testsOf returns all tests of the repository by name.
func testsOf(t *testing.T) map[string]bool {
	t.Helper()
	tests := map[string]bool{}
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && (d.Name() == "build" || strings.HasPrefix(d.Name(), ".") && path != root):
			return filepath.SkipDir
		case d.IsDir() || !strings.HasSuffix(path, "_test.go"):
			return nil
		}
		f, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		for _, decl := range f.Decls {
			if fn, ok := decl.(*ast.FuncDecl); ok && fn.Recv == nil {
				tests[fn.Name.Name] = true
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return tests
}
