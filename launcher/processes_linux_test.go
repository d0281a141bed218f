package launcher

import (
	"os"
	"testing"
)

// TestCrowdIsNeverAll: root ends all that are in a crowd.
func TestCrowdIsNeverAll(t *testing.T) {
	for _, path := range []string{"/proc/self/ns/user", "/proc/1/ns/user", "/proc/self/ns/mnt", "/dev/null"} {
		f, err := os.Open(path)
		if err != nil {
			continue // not root
		}
		defer f.Close()
		if _, err := NewCrowd(f); err == nil {
			t.Errorf("took %s", path)
		}
	}
}
