package main

import (
	"bytes"
	"crypto/sha256"
	"debug/buildinfo"
	"debug/elf"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime/debug"
	"strings"
)

// add adds a file of the package, and what is linked into it.
func (b *bill) add(root, file string, libc map[string]string) error {
	content, err := os.ReadFile(filepath.Join(root, file))
	if err != nil {
		return err
	}
	program := ours(component{
		Name: file, Version: b.own.Version, File: file, Purpose: "APPLICATION",
		Checksums: []checksum{{"SHA256", fmt.Sprintf("%x", sha256.Sum256(content))}},
	})
	id := b.have(b.Packages[0].ID, "CONTAINS", program)
	if !bytes.HasPrefix(content, []byte(elf.ELFMAG)) {
		return nil // a script
	}
	info, err := buildinfo.Read(bytes.NewReader(content))
	if err == nil {
		b.addModules(id, info)
	}
	binary, err := elf.NewFile(bytes.NewReader(content))
	if err != nil {
		return err
	}
	return b.addLibraries(id, binary, info == nil, libc)
}

// addModules adds what Go linked.
func (b *bill) addModules(program string, info *debug.BuildInfo) {
	b.have(program, "STATIC_LINK", goModule("stdlib", strings.TrimPrefix(info.GoVersion, "go"), ""))
	for _, m := range info.Deps {
		if m.Replace != nil {
			m = m.Replace
		}
		b.have(program, "STATIC_LINK", goModule(m.Path, m.Version, m.Sum))
	}
}

// goModule has the module's hash as go.sum does, which is over its files, not
// over an archive.
func goModule(path, version, sum string) component {
	c := component{
		Name: path, Version: version, Purpose: "LIBRARY",
		Refs: purl("golang/"+strings.ToLower(path), version),
	}
	if sum != "" {
		c.Source = "go.sum: " + sum
	}
	return c
}

// addLibraries adds the libraries that a program is loaded with, or of a C
// program that is loaded with none, the C library that it has in itself: only
// glibc's leave the oldest kernel they take.
func (b *bill) addLibraries(program string, binary *elf.File, isC bool, libc map[string]string) error {
	loaded, err := binary.ImportedLibraries()
	if err != nil {
		return err
	}
	for _, name := range loaded {
		b.have(program, "DYNAMIC_LINK", component{Name: name, Purpose: "LIBRARY"})
	}
	if len(loaded) > 0 || !isC {
		return nil
	}
	name := "musl"
	if binary.Section(".note.ABI-tag") != nil {
		name = "glibc"
	}
	if libc[name] == "" {
		return errors.New("it has " + name + " in it: which version? (-libc)")
	}
	b.have(program, "STATIC_LINK", component{
		Name: name, Version: libc[name], Purpose: "LIBRARY",
		Refs: purl("generic/"+name, libc[name]),
	})
	return nil
}

// purl is what databases of vulnerabilities know a component by:
// https://github.com/package-url/purl-spec
func purl(name, version string) []reference {
	return []reference{{"PACKAGE-MANAGER", "purl", "pkg:" + name + "@" + strings.ReplaceAll(version, "+", "%2B")}}
}
