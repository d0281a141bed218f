package launcher

import (
	"slices"
	"strings"
	"testing"
)

// What a user's process says of its container is bounded and fit to be printed.
func TestMadeIsBounded(t *testing.T) {
	huge := strings.Repeat("x", 1<<20)
	said := Made{Mounts: slices.Repeat([]string{huge}, 1000), Devices: []string{"a\x1b[2Jb\n"}}
	got := said.Bounded()
	if len(got.Mounts) != maxMade || len(got.Mounts[0]) != maxMadeText || got.Devices[0] != "a [2Jb " {
		t.Errorf("%d mounts of %d bytes, %q", len(got.Mounts), len(got.Mounts[0]), got.Devices)
	}
}
