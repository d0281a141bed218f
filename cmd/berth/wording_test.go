package main

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/berth-hpc/berth/testdata/docs"
)

// wordings are those of one program or library.
type wordings map[string]docs.Wording

var (
	verbs    = regexp.MustCompile(`%[-+# 0]*(?:\d+|\*)?(?:\.(?:\d+|\*))?(?:l|ll|z|h)?(?:p[sJ]|[a-zA-Z])`) // %ps and %pJ are Slurm's
	literals = regexp.MustCompile(`(?:"(?:[^"\\\n]|\\.)*"|'(?:[^'\\\n]|\\.)*')(?:[\s\\]*(?:"(?:[^"\\\n]|\\.)*"|'(?:[^'\\\n]|\\.)*'))*`)
	literal  = regexp.MustCompile(`"((?:[^"\\\n]|\\.)*)"|'((?:[^'\\\n]|\\.)*)'`)
	escapes  = strings.NewReplacer(`\"`, `"`, `\'`, `'`, `\n`, "\n", `\\`, `\`)
	readable = regexp.MustCompile(`[\x20-\x7e\n]{8,}`)
)

// add takes a format, or a part of a text that begins or ends with a space.
func (ws wordings) add(format string) {
	text := verbs.ReplaceAllString(strings.ReplaceAll(format, "%%", "\x00"), docs.Blank)
	text = strings.Trim(strings.ReplaceAll(text, "\x00", "%"), "\n")
	if strings.HasPrefix(text, " ") {
		text = docs.Blank + text
	}
	if strings.HasSuffix(text, " ") {
		text += docs.Blank
	}
	for _, lead := range []string{"berth: ", "error: "} {
		text = strings.TrimSpace(strings.TrimPrefix(text, lead))
	}
	if docs.Letters(text) > 2 {
		ws[text] = docs.NewWording(text)
	}
}

// readGo takes the strings of a Go file, sums of them as one.
func (ws wordings) readGo(t *testing.T, path string) {
	t.Helper()
	f, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.SkipObjectResolution)
	if err != nil {
		t.Fatal(err)
	}
	ast.Inspect(f, func(n ast.Node) bool {
		if e, ok := n.(ast.Expr); ok {
			if text, some := sum(e); some {
				ws.add(text)
			}
		}
		return true
	})
}

// sum is the text of an expression, with verbs for what is no literal.
func sum(e ast.Expr) (text string, some bool) {
	switch x := e.(type) {
	case *ast.BasicLit:
		text, err := strconv.Unquote(x.Value)
		return text, err == nil && x.Kind == token.STRING
	case *ast.BinaryExpr:
		if x.Op == token.ADD {
			left, some := sum(x.X)
			right, more := sum(x.Y)
			return left + right, some || more
		}
	}
	return "%s", false
}

// readText takes the strings of a file in C or Python, neighbours as one.
func (ws wordings) readText(t *testing.T, path string) {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, run := range literals.FindAllString(string(text), -1) {
		whole := ""
		for _, one := range literal.FindAllStringSubmatch(run, -1) {
			whole += one[1] + one[2]
		}
		ws.add(escapes.Replace(whole))
	}
}

// readProgram takes what can be read in a binary.
func (ws wordings) readProgram(t *testing.T, path string) {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, text := range readable.FindAll(data, -1) {
		for line := range strings.Lines(string(text)) {
			ws.add(line)
		}
	}
}

// berthSays are the texts of Berth's own sources.
func berthSays(t *testing.T) wordings {
	t.Helper()
	ws := wordings{}
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		switch name := d.Name(); {
		case err != nil:
			return err
		case d.IsDir() && (name == "build" || name == "testdata" || name == "tools" || strings.HasPrefix(name, ".") && path != root):
			return filepath.SkipDir
		case strings.HasSuffix(name, "_test.go"):
		case strings.HasSuffix(name, ".go"):
			ws.readGo(t, path)
		case strings.HasSuffix(name, ".c"), strings.HasSuffix(name, ".h"), strings.HasSuffix(name, ".py"):
			ws.readText(t, path)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return ws
}

// machineSays are the texts of the kernel's errors and Go's network, which come
// after Berth's own.
func machineSays(t *testing.T) wordings {
	t.Helper()
	ws := wordings{}
	for n := syscall.Errno(1); n < 134; n++ {
		ws.add(n.Error())
		ws.add(strings.ToUpper(n.Error()[:1]) + n.Error()[1:]) // as C has it
	}
	for _, name := range []string{"net", "net/http", "crypto/tls", "crypto/x509", "os", "os/user", "os/exec", "io"} {
		files, err := filepath.Glob(filepath.Join(runtime.GOROOT(), "src", name, "*.go")) //nolint:staticcheck // go test knows it
		if err != nil || len(files) == 0 {
			t.Fatalf("%s: %v", name, err)
		}
		for _, path := range files {
			ws.readGo(t, path)
		}
	}
	return ws
}

// slurmSays are the texts of the Slurm and the C library of this machine; nil
// without Slurm.
func slurmSays(t *testing.T) wordings {
	t.Helper()
	ws, found := wordings{}, 0
	for _, pattern := range []string{
		"/usr/lib/*/slurm-wlm/libslurmfull.so", "/usr/sbin/slurmd", "/usr/sbin/slurmstepd", "/usr/sbin/slurmctld",
		"/usr/bin/srun", "/usr/bin/sbatch", "/lib/*/libc.so.6",
	} {
		files, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		for _, path := range files {
			ws.readProgram(t, path)
			found++
		}
	}
	if found < 7 {
		return nil
	}
	return ws
}

// find says where the words of a message come from: nil unless each of its
// parts, between colons, is somebody's text, the name of a step ("resolve") with
// what it acts on, or a blank. A blank at its end stands for any more words.
func find(message string, all ...wordings) (from []docs.Wording) {
	parts := strings.Split(message, ": ")
	for end := len(parts); end > 0; end-- {
		from := source(strings.Join(parts[:end], ": "), end == len(parts), all...)
		if from == nil || end == len(parts) {
			if from != nil {
				return from
			}
			continue
		}
		if more := find(strings.Join(parts[end:], ": "), all...); more != nil {
			return append(from, more...)
		}
	}
	return nil
}

// A step, as Berth's errors name it, and what it acts on.
var stepLine = regexp.MustCompile(`^(.+?)(?: ["$]?…"?| mksquashfs| layer …)?$`)

// source is where all of text comes from, which may be cut at its end.
func source(text string, mayBeCut bool, all ...wordings) (from []docs.Wording) {
	if docs.Letters(text) == 0 {
		return []docs.Wording{}
	}
	cut := docs.NewWording(text)
	mayBeCut = mayBeCut && strings.HasSuffix(text, docs.Blank) && cut.Letters >= 6
	step := stepLine.FindStringSubmatch(text)
	for _, ws := range all {
		for _, w := range ws {
			if filled, ok := w.Fill(text); ok {
				if more, ok := findAll(filled, all...); ok {
					from = append(append(from, w), more...)
				}
			} else if mayBeCut && cut.Is(w.Text) {
				from = append(from, w)
			}
		}
		if w, ok := ws[step[1]]; ok {
			from = append(from, w)
		}
	}
	return from
}

func findAll(texts []string, all ...wordings) (from []docs.Wording, ok bool) {
	for _, text := range texts {
		more := find(text, all...)
		if more == nil {
			return nil, false
		}
		from = append(from, more...)
	}
	return from, true
}

// mostLetters is how many letters the longest of some texts has.
func mostLetters(some []docs.Wording) (n int) {
	for _, w := range some {
		n = max(n, w.Letters)
	}
	return n
}
