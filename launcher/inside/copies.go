package inside

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

// copyFiles puts what a writable root gets copies of into the layer above the
// image, and returns the other binds. Package managers replace such files by
// rename(2), which no mount point can be a target of: without this, no package
// with an account of its own could be installed.
func (r *rootfs) copyFiles(binds []bind) ([]bind, error) {
	var mounted []bind
	for _, b := range binds {
		if !b.copied {
			mounted = append(mounted, b)
			continue
		}
		if err := r.copyFile(b.source, b.target); err != nil {
			return nil, fmt.Errorf("copy %s into the container: %w", b.source, err)
		}
	}
	return mounted, nil
}

// copyFile keeps the source's mode and time.
func (r *rootfs) copyFile(source, target string) error {
	text, err := os.ReadFile(source)
	if err != nil {
		return err
	}
	st, err := os.Stat(source)
	if err != nil {
		return err
	}
	path, err := r.writeFile(target, text)
	if err != nil {
		return err
	}
	return errors.Join(os.Chmod(path, st.Mode().Perm()), os.Chtimes(path, st.ModTime(), st.ModTime()))
}

// writeFile puts a file into the layer and returns where it is. It follows
// links of the image on the way to target, and replaces one that is target.
func (r *rootfs) writeFile(target string, text []byte) (string, error) {
	dir, err := r.resolve(filepath.Dir(target))
	if err != nil {
		return "", err
	}
	if err := r.addDirs(dir); err != nil {
		return "", err
	}
	rel := filepath.Join(dir, filepath.Base(target))
	r.copies = append(r.copies, rel)
	path := filepath.Join(r.work, "points", rel)
	return path, os.WriteFile(path, text, 0o644)
}

// Apt's downloaders become another user and look whether that worked. It can't
// where tasks have one uid only, and the filter that lets the calls succeed
// (launcher/join/filter.h) changes nothing about who one is.
const (
	aptFolder = "/etc/apt/apt.conf.d"
	aptRoot   = `// Written by Berth: in this container nobody can become another user.
APT::Sandbox::User "root";
`
)

// helpInstallers tells package managers that have to know it what tasks that
// appear as root are.
func (r *rootfs) helpInstallers() error {
	rel, err := r.resolve(aptFolder)
	if err != nil {
		return err
	}
	if st, err := os.Stat(filepath.Join(r.tree, rel)); err != nil || !st.IsDir() {
		return nil // an image without apt
	}
	_, err = r.writeFile(aptFolder+"/00berth", []byte(aptRoot))
	return err
}
