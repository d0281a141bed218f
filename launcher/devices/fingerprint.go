package devices

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
)

// Fingerprint tells one state of the spec folders from another without
// reading a file: names, sizes, inodes and times of change, which also rights
// and owners move. It is "" where there is nothing.
func Fingerprint(dirs []string) string {
	h, count := sha256.New(), 0
	for _, dir := range dirs {
		entries, err := os.ReadDir(dir)
		if err != nil {
			continue
		}
		for _, e := range entries {
			count++
			fmt.Fprintf(h, "%q", filepath.Join(dir, e.Name()))
			if st, err := os.Stat(filepath.Join(dir, e.Name())); err == nil {
				s := st.Sys().(*syscall.Stat_t)
				fmt.Fprintf(h, " %d %d %d %d", s.Size, s.Ino, s.Ctim.Sec, s.Ctim.Nsec)
			}
		}
	}
	if count == 0 {
		return ""
	}
	return hex.EncodeToString(h.Sum(nil)[:8])
}

// CatalogueFile is where a node keeps the catalogue of one state of its specs.
func CatalogueFile(runDir, fingerprint string) string {
	return filepath.Join(runDir, "devices", fingerprint+".json")
}
