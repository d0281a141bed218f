package credentials

import (
	"context"
	"fmt"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// A SiteFile is an auth file of the site's, for a host that nodes ask with the
// site's own login. Its path is from the site's settings. Nobody but root and
// whoever runs this process may be able to read or change it.
type SiteFile struct{ Path string }

// Login returns the entry for t; none is an error, because a setting says that
// there is one.
func (f SiteFile) Login(_ context.Context, t Target) (Login, error) {
	data, err := f.read()
	if err != nil {
		return Login{}, problem(f.Path, "for administrators: see the setting registry.*.mirror_login", err)
	}
	found, err := parseAuths(data, f.Path)
	if err != nil {
		return Login{}, err
	}
	login, err := found.entry(t)
	if err == nil && login.IsZero() {
		err = problem(f.Path, "for administrators: log in to "+t.Registry+" and put the entry there", fmt.Errorf("there is none for %s", t.Registry))
	}
	return login, err
}

func (f SiteFile) read() ([]byte, error) {
	file, info, err := openRegular(f.Path, unix.O_NOFOLLOW)
	if err != nil {
		return nil, withoutPath(err)
	}
	defer file.Close()
	if err := privateToUs(info); err != nil {
		return nil, err
	}
	return readBounded(file)
}

// privateToUs wants a file of root's or of this process's user, which others can
// neither write nor, but for this process's group, read.
func privateToUs(info os.FileInfo) error {
	st := info.Sys().(*syscall.Stat_t)
	owner, group := int(st.Uid), int(st.Gid)
	mode := info.Mode().Perm()
	switch {
	case owner != 0 && owner != os.Geteuid():
		return fmt.Errorf("it belongs to user %d", owner)
	case mode&0o022 != 0:
		return fmt.Errorf("others may write it: mode %04o", mode)
	case mode&0o004 != 0 || mode&0o040 != 0 && group != os.Getegid() && group != 0:
		return fmt.Errorf("others may read it: mode %04o", mode)
	}
	return nil
}
