package launcher

import (
	"fmt"
	"strings"
)

// Places inside the namespace of the image mounts, whose root is an empty
// tmpfs that holds these two folders and nothing else.
const (
	imagesDir = "/images" // one mount point per image, named <digest>.<policy>
	pinsDir   = "/pins"   // one folder per job, one bound namespace per file
)

// Files of the node's run folder that belong to Mounts.
const (
	mountsNamespaceFile = "private/mounts.ns"
	mountsLockFile      = "mounts.lock"
)

// maxMountName bounds the name of an image or job: a path element of Linux
// holds 255 bytes.
const maxMountName = 200

// checkMountName accepts what is one harmless path element: names come from
// digests and job numbers, so anything else is a caller's mistake.
func checkMountName(name string) error {
	if name == "" || len(name) > maxMountName || name[0] == '.' {
		return fmt.Errorf("bad name %q for a mount", name)
	}
	if strings.ContainsFunc(name, notInMountName) {
		return fmt.Errorf("bad name %q for a mount", name)
	}
	return nil
}

func notInMountName(r rune) bool {
	switch {
	case r >= 'a' && r <= 'z', r >= 'A' && r <= 'Z', r >= '0' && r <= '9', strings.ContainsRune(".-_[]", r):
		return false
	}
	return true
}
