package main

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

const (
	module = "github.com/berth-hpc/berth"
	root   = "../.." // of the module
)

// A sourceFile is one Go file of the repository, tests left out.
type sourceFile struct {
	path string // from the root
	*ast.File
}

// sources parses every Go file of the repository but for tests.
func sources(t *testing.T) (files []sourceFile, positions *token.FileSet) {
	t.Helper()
	positions = token.NewFileSet()
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		name := d.Name()
		switch {
		case err != nil:
			return err
		case d.IsDir() && (name == "build" || strings.HasPrefix(name, ".") && path != root):
			return filepath.SkipDir
		case d.IsDir() || !strings.HasSuffix(name, ".go") || strings.HasSuffix(name, "_test.go"):
			return nil
		}
		f, err := parser.ParseFile(positions, path, nil, parser.ParseComments)
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(root, path)
		files = append(files, sourceFile{rel, f})
		return err
	})
	if err != nil || len(files) < 20 {
		t.Fatalf("%d files: %v", len(files), err)
	}
	return files, positions
}

// Whoever opens a package reads first what it is for.
func TestEveryPackageIsDocumented(t *testing.T) {
	files, _ := sources(t)
	documented := map[string]bool{}
	for _, f := range files {
		dir := filepath.Dir(f.path)
		documented[dir] = documented[dir] || f.Doc != nil
	}
	for dir, ok := range documented {
		if !ok {
			t.Errorf("%s: no package comment", dir)
		}
	}
}

// Nothing happens because a package is imported.
func TestNoInit(t *testing.T) {
	files, _ := sources(t)
	for _, f := range files {
		for _, decl := range f.Decls {
			fn, ok := decl.(*ast.FuncDecl)
			if ok && fn.Recv == nil && fn.Name.Name == "init" {
				t.Errorf("%s: func init", f.path)
			}
		}
	}
}

// Only programs end the process, and only the command line reads its
// environment: everything else gets what it needs as arguments.
func TestOnlyProgramsTouchTheProcess(t *testing.T) {
	files, positions := sources(t)
	for _, f := range files {
		testBed := strings.HasPrefix(f.path, "testdata/")
		for call, pos := range osCalls(f.File) {
			switch call {
			case "Exit":
				if f.Name.Name != "main" {
					t.Errorf("%s: os.Exit outside of a program", positions.Position(pos))
				}
			case "Getenv", "LookupEnv", "Environ":
				if !testBed && !strings.HasPrefix(f.path, "cmd/berth/") {
					t.Errorf("%s: os.%s outside of cmd/berth", positions.Position(pos), call)
				}
			}
		}
	}
}

// osCalls returns which functions of package os a file names, and where.
func osCalls(f *ast.File) map[string]token.Pos {
	calls := map[string]token.Pos{}
	ast.Inspect(f, func(n ast.Node) bool {
		if sel, ok := n.(*ast.SelectorExpr); ok {
			if pkg, ok := sel.X.(*ast.Ident); ok && pkg.Name == "os" {
				calls[sel.Sel.Name] = sel.Pos()
			}
		}
		return true
	})
	return calls
}

// Imports follow the flow of data, and the small programs stay small.
func TestImports(t *testing.T) {
	rules := []struct{ pkg, mustNot, why string }{
		{"imagecache", module + "/launcher", "images know nothing of containers"},
		{"policy", module + "/imagecache", "small programs read the rules, too"},
		{"policy", "net", "rules are applied to what is known"},
		{"imagecache", module + "/prolog", "images know nothing of jobs"},
		{"imagecache/store", "github.com/google/go-containerregistry", "the store uses no network"},
		{"imagecache/credentials", "net", "logins are looked for without a network"},
		{"imagecache/credentials", "github.com/google/go-containerregistry", "logins are looked for without a network"},
		{"launcher/...", module + "/prolog", "containers know nothing of jobs' preparation"},
		{"launcher/...", "github.com/google/go-containerregistry", "containers use no network"},
		{"cmd/internal/config", module + "/imagecache", "small programs read settings, too"},
		{"cmd/berth-create", "github.com/google/go-containerregistry", "libcontainer copies the program for every container"},
		{"cmd/berth-create", "github.com/alecthomas/kong", "libcontainer copies the program for every container"},
		{"cmd/berth-create", module + "/launcher/devices/cdi", "libcontainer copies the program for every container"},
		{"cmd/berth-create", "net/http", "it runs as root and uses no network"},
		{"cmd/berth", "github.com/sigstore", "its start costs every call of berth"},
		{"cmd/berth-verify", "github.com/alecthomas/kong", "it has no command line"},
		{"cmd/berth", "github.com/opencontainers/runc/libcontainer", "its start costs every call of berth"},
	}
	for _, rule := range rules {
		t.Run(rule.pkg+" without "+rule.mustNot, func(t *testing.T) {
			cmd := exec.CommandContext(t.Context(), "go", "list", "-deps", "./"+rule.pkg)
			cmd.Dir = root
			out, err := cmd.Output()
			if err != nil {
				t.Fatal(err)
			}
			for _, dep := range strings.Fields(string(out)) {
				if dep == rule.mustNot || strings.HasPrefix(dep, rule.mustNot+"/") {
					t.Errorf("%s depends on %s: %s", rule.pkg, dep, rule.why)
				}
			}
		})
	}
}
