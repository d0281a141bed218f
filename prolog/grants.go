package prolog

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/berth-hpc/berth/imagecache/store"
)

// A grant says that a registry let a user at an image: the account got the
// manifest with that user's login, from the registry as the site's settings
// define it, for a repository from which the store pulled every blob.
//
//	<store>/grants/<uid>/<sha256 of registry, repository, digest>.json
//
// Root alone reads and writes there. A grant holds for Config.GrantTTL.
type grant struct {
	UID        uint32       `json:"uid"`
	Registry   string       `json:"registry"`
	Repository string       `json:"repository"`
	Digest     store.Digest `json:"digest"`
	Given      time.Time    `json:"given"`
}

// forgetGrants is after how long a grant that was not renewed is removed, when
// its user gets another.
const forgetGrants = 30 * 24 * time.Hour

func (c Config) grantsDir(uid uint32) string {
	return filepath.Join(c.StoreDir, "grants", strconv.FormatUint(uint64(uid), 10))
}

func (c Config) grantPath(g grant) string {
	sum := sha256.Sum256([]byte(g.Registry + "\x00" + g.Repository + "\x00" + g.Digest.String()))
	return filepath.Join(c.grantsDir(g.UID), hex.EncodeToString(sum[:])+".json")
}

// granted says whether g was given, and whether that still holds. One from the
// future, by a clock that was wrong, does not.
func (c Config) granted(g grant) (given, holds bool) {
	data, err := os.ReadFile(c.grantPath(g))
	if err != nil {
		return false, false
	}
	var is grant
	if json.Unmarshal(data, &is) != nil {
		return false, false
	}
	age := time.Since(is.Given)
	is.Given = g.Given
	given = is == g
	return given, given && age >= 0 && age < c.GrantTTL
}

// give writes g down, as of now.
func (c Config) give(g grant) error {
	dir := c.grantsDir(g.UID)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	c.forgetOld(dir)
	g.Given = time.Now().UTC()
	return store.WriteJSON(c.grantPath(g), 0o600, g)
}

func (c Config) forgetOld(dir string) {
	entries, _ := os.ReadDir(dir)
	for _, e := range entries {
		if info, err := e.Info(); err == nil && time.Since(info.ModTime()) > max(forgetGrants, 2*c.GrantTTL) {
			_ = os.Remove(filepath.Join(dir, e.Name()))
		}
	}
}

// takeBack removes g.
func (c Config) takeBack(g grant) error {
	err := os.Remove(c.grantPath(g))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}
