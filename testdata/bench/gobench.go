package main

import (
	"bytes"
	"context"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// goBenchmarks runs the benchmarks of all packages: parts of what the other
// sections measure as a whole, one after the other.
func (b *bench) goBenchmarks(ctx context.Context) error {
	packages, err := benchmarked(b.top)
	if err != nil {
		return err
	}
	args := []string{"test", "-C", b.top, "-run", "^$", "-bench", ".", "-count", strconv.Itoa(max(b.rounds/6, 1)), "-p", "1", "-timeout", "30m"}
	out, err := output(exec.CommandContext(ctx, "go", append(args, packages...)...), nil)
	for _, l := range benchmarkLines(out) {
		b.add(l)
	}
	return err
}

// benchmarked finds packages that have benchmarks.
func benchmarked(top string) ([]string, error) {
	var found []string
	err := filepath.WalkDir(top, func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && (d.Name() == ".git" || d.Name() == "build"):
			return fs.SkipDir
		case !strings.HasSuffix(path, "_test.go"):
			return nil
		}
		text, err := os.ReadFile(path)
		if dir, _ := filepath.Rel(top, filepath.Dir(path)); bytes.Contains(text, []byte("\nfunc Benchmark")) && !slices.Contains(found, "./"+dir) {
			found = append(found, "./"+dir)
		}
		return err
	})
	return found, err
}

const module = "github.com/berth-hpc/berth/"

// benchmarkLines reads what `go test -bench` prints: lines of a name, a count,
// and numbers with their units.
func benchmarkLines(out []byte) []Line {
	type key struct{ pkg, name, unit string }
	var order []key
	values := map[key][]pair{}
	pkg, processors := "", regexp.MustCompile(`-\d+$`)
	for line := range strings.Lines(string(out)) {
		fields := strings.Fields(line)
		if len(fields) == 2 && fields[0] == "pkg:" {
			pkg = fields[1]
		}
		if len(fields) < 4 || !strings.HasPrefix(fields[0], "Benchmark") {
			continue
		}
		name := processors.ReplaceAllString(strings.TrimPrefix(fields[0], "Benchmark"), "")
		for i := 2; i+1 < len(fields); i += 2 {
			v, err := strconv.ParseFloat(fields[i], 64)
			if err != nil {
				break
			}
			k := key{pkg, name, fields[i+1]}
			if values[k] == nil {
				order = append(order, k)
			}
			values[k] = append(values[k], pair{ours: v})
		}
	}
	var lines []Line
	for _, k := range order {
		c := comparison{section: "go test -bench, " + strings.TrimPrefix(k.pkg, module), name: k.name, unit: k.unit, ours: k.name, scale: 1, statistic: "median"}
		if k.unit == "ns/op" {
			c.unit, c.scale = "µs", 1e-3
		}
		c.name += ", " + c.unit
		lines = append(lines, c.line(values[k], 0, ""))
	}
	return lines
}
