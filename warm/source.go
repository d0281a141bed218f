package warm

import (
	"fmt"
	"io/fs"
	"path"
	"strings"

	"github.com/berth-hpc/berth/imagecache"
)

// maxFiles bounds how many files of a workflow are followed.
const maxFiles = 500

// FromWorkflow reads the images that a workflow names: Nextflow's
// (nextflow.config, *.config, *.nf) and Snakemake's (Snakefile, *.smk), with
// the files that they include by a plain path; anything else is a list. files
// is where names are looked up. What depends on a variable is not guessed: it
// is in Unclear, with file and line.
func FromWorkflow(files fs.FS, name string) (*List, error) {
	w := &workflow{files: files, seen: map[string]bool{}}
	var parse func(*source)
	switch base := path.Base(name); {
	case path.Ext(base) == ".nf" || path.Ext(base) == ".config":
		parse = w.nextflow
	case base == "Snakefile" || path.Ext(base) == ".smk":
		parse = w.snakemake
	default:
		data, err := fs.ReadFile(files, name)
		if err != nil {
			return nil, err
		}
		return Parse(name, data)
	}
	if err := w.read(name, parse); err != nil {
		return nil, err
	}
	w.resolve()
	return &w.list, nil
}

// A workflow is the files of one, while they are read.
type workflow struct {
	files    fs.FS
	seen     map[string]bool
	found    []found
	registry string // Nextflow's, for names without one
	list     List
}

// found is an image's text and where it stands.
type found struct{ at, text string }

// A source is one file without its comments.
type source struct {
	name, text string
}

func (s *source) at(offset int) string {
	return fmt.Sprintf("%s:%d", s.name, 1+strings.Count(s.text[:offset], "\n"))
}

// read parses a file once.
func (w *workflow) read(name string, parse func(*source)) error {
	name = path.Clean(name)
	if w.seen[name] || len(w.seen) >= maxFiles {
		return nil
	}
	w.seen[name] = true
	data, err := fs.ReadFile(w.files, name)
	if err != nil {
		return err
	}
	parse(&source{name: name, text: string(data)})
	return nil
}

// include follows a path that a file at at has.
func (w *workflow) include(s *source, at, text string, parse func(*source)) {
	if strings.ContainsAny(text, "${}") || strings.Contains(text, "://") {
		w.unclear(at, "includes "+text)
		return
	}
	if err := w.read(path.Join(path.Dir(s.name), text), parse); err != nil {
		w.unclear(at, "includes "+text+": "+err.Error())
	}
}

func (w *workflow) unclear(at, text string) {
	text = strings.Join(strings.Fields(text), " ")
	if len(text) > 120 {
		text = text[:120] + "…"
	}
	w.list.Unclear = append(w.list.Unclear, at+": "+text)
}

// resolve makes entries of what was found, once the registry is known.
func (w *workflow) resolve() {
	for _, f := range w.found {
		text := f.text
		if w.registry != "" && !strings.Contains(text, "://") && !imagecache.HasRegistry(text) {
			text = strings.TrimSuffix(w.registry, "/") + "/" + text
		}
		e, err := newEntry(f.at, text)
		if err != nil {
			w.unclear(f.at, f.text+" (no image in a registry)")
			continue
		}
		w.list.add(e)
	}
}

// blank puts spaces in place of what is at [i, j) but for ends of lines, so
// that offsets keep their lines.
func blank(b []byte, i, j int) {
	for ; i < j && i < len(b); i++ {
		if b[i] != '\n' {
			b[i] = ' '
		}
	}
}
