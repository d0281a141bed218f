package credentials

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/berth-hpc/berth/fault"
	"github.com/berth-hpc/berth/imagecache/store"
)

// Store keeps a login for key, which is HOST or HOST/NAMESPACE, and returns
// where. That is the helper which the user's files name for the host, else
// $REGISTRY_AUTH_FILE or ~/.config/containers/auth.json. Not podman's
// $XDG_RUNTIME_DIR/containers/auth.json: it is in one machine's memory, and
// jobs start on others. Other entries of the file stay as they are.
func (k *Keychain) Store(ctx context.Context, key string, login Login) (where string, err error) {
	name, err := k.storeHelper(key)
	if err != nil {
		return "", err
	}
	if name != "" {
		return "docker-credential-" + name, k.storeInHelper(ctx, name, key, login)
	}
	path, err := k.Places.ownFile()
	if err != nil {
		return "", err
	}
	entry := authEntryOf(login)
	return path, changeFile(ctx, path, func(all map[string]json.RawMessage) (bool, error) {
		removeKey(all, key)
		raw, err := json.Marshal(entry)
		all[key] = raw
		return true, err
	})
}

// authEntryOf is a login as podman writes it.
func authEntryOf(l Login) map[string]string {
	return map[string]string{"auth": encodeAuth(l.name, l.password.Reveal())}
}

func (k *Keychain) storeInHelper(ctx context.Context, name, key string, login Login) error {
	input, err := json.Marshal(map[string]string{
		"ServerURL": serverAddress(key), "Username": login.name, "Secret": login.password.Reveal(),
	})
	if err != nil {
		return err
	}
	_, err = k.Helpers.run(ctx, name, "store", input)
	return fault.Wrap("store the login by", "docker-credential-"+name, fault.User,
		"install it, or take it out of your docker or podman configuration to have logins in a file", err)
}

// Erase forgets the logins for key where Store keeps them, and returns from
// where it took them.
func (k *Keychain) Erase(ctx context.Context, key string) (where []string, err error) {
	path, err := k.Places.ownFile()
	if err != nil {
		return nil, err
	}
	err = changeFile(ctx, path, func(all map[string]json.RawMessage) (bool, error) {
		if removeKey(all, key) {
			where = append(where, path)
		}
		return len(where) > 0, nil
	})
	if err != nil {
		return where, err
	}
	name, err := k.storeHelper(key)
	if err != nil || name == "" {
		return where, err
	}
	return k.eraseInHelper(ctx, name, key, where)
}

func (k *Keychain) eraseInHelper(ctx context.Context, name, key string, where []string) ([]string, error) {
	server := []byte(serverAddress(key))
	_, err := k.Helpers.run(ctx, name, "get", server)
	if errors.Is(err, errNotFound) {
		return where, nil
	}
	if err == nil {
		_, err = k.Helpers.run(ctx, name, "erase", server)
	}
	if err != nil {
		return where, helperFault(name, "your docker or podman configuration", err)
	}
	return append(where, "docker-credential-"+name), nil
}

// EraseAll forgets all logins in the file of `berth login`.
func (k *Keychain) EraseAll(ctx context.Context) (path string, count int, err error) {
	path, err = k.Places.ownFile()
	if err != nil {
		return "", 0, err
	}
	err = changeFile(ctx, path, func(all map[string]json.RawMessage) (bool, error) {
		count = len(all)
		clear(all)
		return count > 0, nil
	})
	return path, count, err
}

// ownFile is the file that login and logout change.
func (p Places) ownFile() (string, error) {
	switch {
	case p.AuthFile != "":
		return p.AuthFile, nil
	case p.ConfigHome != "":
		return filepath.Join(p.ConfigHome, containersAuth), nil
	}
	return "", &fault.Error{
		Op: "find a place for logins", Blame: fault.User, Err: errors.New("you have no home folder"),
		Remedy: "set HOME, or REGISTRY_AUTH_FILE to a file of yours",
	}
}

// storeHelper returns the helper that the user's files name for key's host.
func (k *Keychain) storeHelper(key string) (string, error) {
	for _, path := range k.Places.authFiles() {
		found, err := authFile{path}.read(k)
		if err != nil {
			return "", err
		}
		if name := found.helper(Target{Registry: key}); name != "" {
			return name, nil
		}
		if found.CredsStore != "" {
			return found.CredsStore, nil
		}
	}
	return "", nil
}

// removeKey removes every spelling of key.
func removeKey(all map[string]json.RawMessage, key string) bool {
	before := len(all)
	maps.DeleteFunc(all, func(k string, _ json.RawMessage) bool { return Key(k) == Key(key) })
	return len(all) < before
}

// changeFile lets change work on the entries of an auth file, and writes them
// back by rename if it says so. Two that change it at once wait for each other
// where the file system has locks.
func changeFile(ctx context.Context, path string, change func(map[string]json.RawMessage) (bool, error)) error {
	err := changeLocked(ctx, path, change)
	return fault.Wrap("change the logins in", path, fault.User, "look at that file and its folder: owner, rights, free space", err)
}

func changeLocked(ctx context.Context, path string, change func(map[string]json.RawMessage) (bool, error)) error {
	path = target(path)
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	release, err := lockFolder(ctx, filepath.Dir(path))
	if err != nil {
		return err
	}
	defer release()
	file, entries, err := readEntries(path)
	if err != nil {
		return err
	}
	changed, err := change(entries)
	if err != nil || !changed {
		return err
	}
	if file["auths"], err = json.Marshal(entries); err != nil {
		return err
	}
	return store.WriteJSON(path, 0o600, file)
}

// target follows a link to the file that is to be replaced.
func target(path string) string {
	if real, err := filepath.EvalSymlinks(path); err == nil {
		return real
	}
	return path
}

// readEntries returns a file's members, and of those its logins.
func readEntries(path string) (file, entries map[string]json.RawMessage, err error) {
	file, entries = map[string]json.RawMessage{}, map[string]json.RawMessage{}
	data, _, err := readRegular(path)
	if errors.Is(err, fs.ErrNotExist) || err == nil && len(data) == 0 {
		return file, entries, nil
	}
	if err != nil {
		return nil, nil, withoutPath(err)
	}
	if err := json.Unmarshal(data, &file); err != nil {
		return nil, nil, jsonProblem(data, err)
	}
	if raw, ok := file["auths"]; ok {
		if err := json.Unmarshal(raw, &entries); err != nil {
			return nil, nil, errors.New("its auths are not what belongs there")
		}
	}
	return orEmpty(file), orEmpty(entries), nil
}

// orEmpty takes JSON's null for an object without members.
func orEmpty(m map[string]json.RawMessage) map[string]json.RawMessage {
	if m == nil {
		return map[string]json.RawMessage{}
	}
	return m
}

// lockWait bounds the wait for another login, lockPause is between two tries.
const (
	lockWait  = 5 * time.Second
	lockPause = 20 * time.Millisecond
)

// lockFolder locks a folder. File systems without locks go without.
func lockFolder(ctx context.Context, dir string) (release func(), err error) {
	ctx, cancel := context.WithTimeout(ctx, lockWait)
	defer cancel()
	f, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	tick := time.NewTicker(lockPause)
	defer tick.Stop()
	for unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB) == unix.EWOULDBLOCK {
		select {
		case <-tick.C:
		case <-ctx.Done():
			f.Close()
			return nil, fmt.Errorf("another login holds %s: %w", dir, ctx.Err())
		}
	}
	return func() { f.Close() }, nil
}
