package credentials

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"
)

// maxFile bounds what is read of a file, a variable or a helper, in bytes.
const maxFile = 1 << 20

// readFile reads a file with logins; nil when there is none. Anything but a
// regular file is refused, and not waited for. Open says that others may read
// it, too.
func readFile(path string) (data []byte, open bool, err error) {
	data, mode, err := readRegular(path)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENOTDIR) {
		return nil, false, nil
	}
	if err != nil {
		return nil, false, problem(path, "make it a file that you may read, or remove it", withoutPath(err))
	}
	return data, mode&0o044 != 0, nil
}

// warnOpen says that others may read the logins in a file.
func (k *Keychain) warnOpen(path string) {
	k.warn("others may read your logins in %s; to end that: chmod 600 %s", path, path)
}

func readRegular(path string) ([]byte, fs.FileMode, error) {
	f, info, err := openRegular(path, 0)
	if err != nil {
		return nil, 0, err
	}
	defer f.Close()
	data, err := readBounded(f)
	return data, info.Mode().Perm(), err
}

func openRegular(path string, flags int) (*os.File, os.FileInfo, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK|unix.O_NOCTTY|flags, 0)
	if err != nil {
		return nil, nil, err
	}
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = errors.New("it is not a regular file")
	}
	if err != nil {
		f.Close()
		return nil, nil, err
	}
	return f, info, nil
}

func readBounded(f io.Reader) ([]byte, error) {
	data, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err == nil && len(data) > maxFile {
		err = fmt.Errorf("it is larger than %d bytes", maxFile)
	}
	return data, err
}

// withoutPath returns the cause of an error that its wrapper names the path of.
func withoutPath(err error) error {
	if p, ok := errors.AsType[*fs.PathError](err); ok {
		return p.Err
	}
	return err
}
