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
