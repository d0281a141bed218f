package merge

import (
	"errors"
	"fmt"
	"path"
	"strings"

	"github.com/berth-hpc/berth/imagecache/squashfs"
)

// A position is a path without symbolic links, and what is there.
type position struct {
	names []string
	nodes []*node // nodes[i] is at names[:i], or nil; nodes[0] is the root
	size  int     // of the path, in bytes
}

func (p *position) last() *node { return p.nodes[len(p.nodes)-1] }

func (p *position) push(name string, n *node) error {
	p.names, p.nodes = append(p.names, name), append(p.nodes, n)
	if p.size += len(name) + 1; p.size > maxPath {
		return fmt.Errorf("its path is longer than %d bytes", maxPath)
	}
	return nil
}

func (p *position) pop() {
	if n := len(p.names); n > 0 {
		p.size -= len(p.names[n-1]) + 1
		p.names, p.nodes = p.names[:n-1], p.nodes[:n]
	}
}

func (p *position) reset() {
	p.names, p.nodes, p.size = p.names[:0], p.nodes[:1], 0
}

// resolve follows dir through the tree's symbolic links, its last part
// included, and never out of the tree. What does not exist is taken as
// written, and ".." after it undoes it.
func (t *Tree) resolve(dir string) (position, error) {
	p := position{nodes: []*node{t.root}}
	links := 0
	for rest := dir; rest != ""; {
		var part string
		part, rest, _ = strings.Cut(rest, "/")
		switch part {
		case "", ".":
			continue
		case "..":
			p.pop()
			continue
		}
		if err := checkName(part); err != nil {
			return p, err
		}
		next := p.child(part)
		if next == nil || next.Kind != squashfs.Symlink {
			if err := p.push(part, next); err != nil {
				return p, err
			}
			continue
		}
		if links++; links > maxLinks {
			return p, errors.New("its path goes through too many symbolic links")
		}
		if path.IsAbs(next.Target) {
			p.reset()
		}
		rest = next.Target + "/" + rest
	}
	return p, nil
}

func (p *position) child(name string) *node {
	if dir := p.last(); dir.isDir() {
		return dir.children[name].node
	}
	return nil
}

func checkName(name string) error {
	if len(name) > squashfs.MaxName {
		return fmt.Errorf("a name in its path has %d bytes, %d are possible", len(name), squashfs.MaxName)
	}
	if strings.ContainsRune(name, 0) {
		return errors.New("a name in its path has a zero byte")
	}
	return nil
}

// makeDirs makes the folders of p that do not exist, in the place of what is
// no folder.
func (t *Tree) makeDirs(p *position) error {
	for i, name := range p.names {
		if p.nodes[i+1].isDir() {
			continue
		}
		if err := t.spend(); err != nil {
			return err
		}
		n := &node{Inode: squashfs.Inode{Kind: squashfs.Dir, Mode: impliedMode}}
		t.add(p.nodes[i], name, n)
		p.nodes[i+1] = n
	}
	return nil
}
