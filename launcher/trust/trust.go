// Package trust says whose files may tell Berth what to do: on a managed node
// root's alone, by hand also the caller's own.
package trust

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
)

// An Owner is root and perhaps one user more, by number. Root's is 0.
type Owner int

// Check accepts a file or folder that only o could have changed or replaced:
// it, what it links to, and every folder on the way belong to o, and others
// may not write there. Others may write to a folder with the sticky bit,
// where they cannot replace what is not theirs.
func (o Owner) Check(path string) error {
	real, err := filepath.EvalSymlinks(path)
	if err != nil {
		return bare(err)
	}
	if real, err = filepath.Abs(real); err != nil {
		return err
	}
	if err := o.checkOne(real, false); err != nil {
		return err
	}
	for dir := filepath.Dir(real); ; dir = filepath.Dir(dir) {
		if err := o.checkOne(dir, true); err != nil || dir == "/" {
			return err
		}
	}
}

// CheckProgram does so for a file that is to be executed.
func (o Owner) CheckProgram(path string) error {
	if !filepath.IsAbs(path) {
		return fmt.Errorf("%s is no absolute path", path)
	}
	st, err := os.Stat(path)
	switch {
	case err != nil:
		return fmt.Errorf("%s: %w", path, bare(err))
	case !st.Mode().IsRegular() || st.Mode()&0o111 == 0:
		return fmt.Errorf("%s cannot be executed", path)
	}
	return o.Check(path)
}

func (o Owner) checkOne(path string, above bool) error {
	st, err := os.Stat(path)
	if err != nil {
		return bare(err)
	}
	uid := int(st.Sys().(*syscall.Stat_t).Uid)
	switch {
	case uid != 0 && uid != int(o):
		return fmt.Errorf("%s belongs to user %d", path, uid)
	case st.Mode()&0o022 != 0 && (!above || st.Mode()&fs.ModeSticky == 0):
		return fmt.Errorf("others may write to %s", path)
	}
	return nil
}

// bare is an error without the path, which is said already.
func bare(err error) error {
	var p *fs.PathError
	if errors.As(err, &p) {
		return p.Err
	}
	return err
}
