package inside

import (
	"errors"
	"fmt"
	"path"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// Sources that are no paths: a new tmpfs, and taking away what an earlier
// mount of the list would put there.
const (
	sourceTmpfs  = "tmpfs"
	sourceUmount = "umount"
)

// parseMounts reads the value of one --container-mounts option,
// SRC:DST[:FLAGS][,...], where SRC alone means SRC:SRC. Relative sources are
// taken from dir, the task's working directory. The plugin refuses the same
// values at submission (spank/check.c); mounts.txt of its tests has both.
func parseMounts(value, dir string) ([]bind, error) {
	var bs []bind
	for item := range strings.SplitSeq(value, ",") {
		b, err := parseMount(item, dir)
		if err != nil {
			return nil, userError(fmt.Sprintf("invalid mount %q: %v", item, err),
				"write SRC:DST or SRC:DST:FLAGS, as in /data:/data:ro")
		}
		bs = append(bs, b)
	}
	return bs, nil
}

// A mountSpec is one entry, cut at its colons. Target and flags may be absent.
type mountSpec struct {
	source, target, flags string
	hasTarget, hasFlags   bool
}

func parseMount(item, dir string) (bind, error) {
	s, err := cutMount(item)
	if err != nil {
		return bind{}, err
	}
	b := bind{source: s.source, target: s.target, propagation: unix.MS_SLAVE | unix.MS_REC}
	switch s.source {
	case sourceTmpfs:
		b.tmpfs, b.flags = true, unix.MS_NOSUID|unix.MS_NODEV
	case sourceUmount:
		b.remove = true
	default:
		if !filepath.IsAbs(b.source) {
			b.source = filepath.Join(dir, b.source)
		}
		if !s.hasTarget {
			b.target = b.source
		}
	}
	if s.hasFlags {
		if err := b.setFlags(s.flags); err != nil {
			return b, err
		}
	}
	return b, checkTarget(&b)
}

func cutMount(item string) (mountSpec, error) {
	fields := strings.Split(item, ":")
	s := mountSpec{source: fields[0]}
	verb := s.source == sourceTmpfs || s.source == sourceUmount
	switch {
	case item == "":
		return s, errors.New("the entry is empty")
	case strings.ContainsFunc(item, isControl):
		return s, errors.New("a path has a control character")
	case !verb && !beginsPath(s.source):
		return s, errors.New("the source begins with . or / (or is tmpfs or umount)")
	case len(fields) > 3 || s.source == sourceUmount && len(fields) > 2:
		return s, errors.New("too many colons")
	case verb && (len(fields) < 2 || fields[1] == ""):
		return s, fmt.Errorf("it needs a target: %s:/PATH", s.source)
	case len(fields) == 1:
		return s, nil
	case !verb && len(fields) == 2 && fields[1] != "" && !beginsPath(fields[1]):
		s.flags, s.hasFlags = fields[1], true // SRC:FLAGS
		return s, nil
	case fields[1] == "":
		return s, errors.New("the target is empty")
	case !beginsPath(fields[1]):
		return s, errors.New("the target begins with /")
	}
	s.target, s.hasTarget = fields[1], true
	if len(fields) == 3 {
		s.flags, s.hasFlags = fields[2], true
	}
	return s, nil
}

func beginsPath(s string) bool { return strings.HasPrefix(s, "/") || strings.HasPrefix(s, ".") }

func isControl(r rune) bool { return r < ' ' || r == 0x7f }

// setFlags applies flags joined by "+", with the meaning they have in mount(8)
// and enroot's fstab. What is no flag is an option of the file system, which
// only a tmpfs has.
func (b *bind) setFlags(flags string) error {
	var data []string
	for word := range strings.SplitSeq(flags, "+") {
		switch {
		case word == "":
			return errors.New("the flags are empty")
		case b.setFlag(word):
		case b.tmpfs:
			data = append(data, word)
		default:
			return fmt.Errorf("unknown flag %q", word)
		}
	}
	b.data = strings.Join(data, ",")
	return nil
}

// setFlag reports whether word is a flag.
func (b *bind) setFlag(word string) bool {
	switch word {
	case "ro":
		b.readonly = true
	case "rw":
		b.readonly = false
	case "nosuid":
		b.flags |= unix.MS_NOSUID
	case "nodev":
		b.flags |= unix.MS_NODEV
	case "noexec":
		b.flags |= unix.MS_NOEXEC
	case "bind":
		b.single = true
	case "rbind":
		b.single = false
	default:
		return b.setPropagation(word) || changesNothing(word)
	}
	return true
}

func (b *bind) setPropagation(word string) bool {
	kinds := map[string]int{
		"private": unix.MS_PRIVATE, "slave": unix.MS_SLAVE,
		"shared": unix.MS_SHARED, "unbindable": unix.MS_UNBINDABLE,
	}
	name, recursive := strings.CutPrefix(word, "r")
	kind, ok := kinds[name]
	if ok {
		b.propagation = kind
		if recursive {
			b.propagation |= unix.MS_REC
		}
	}
	return ok
}

// changesNothing knows words of fstab that are right to write and have no
// effect here: a bind has the times of its source's mount, a container gives
// no rights, and mount points are made whatever x-create= says.
func changesNothing(word string) bool {
	switch word {
	case "defaults", "suid", "dev", "exec", "atime", "noatime", "diratime", "nodiratime", "relatime", "strictatime":
		return true
	}
	return strings.HasPrefix(word, "x-")
}

// checkTarget refuses targets that leave the root file system. Symbolic links
// on the way are resolved inside it later.
func checkTarget(b *bind) error {
	if rel := path.Clean(b.target); rel == ".." || strings.HasPrefix(rel, "../") {
		return errors.New("the target leaves the container")
	}
	b.target = path.Join("/", b.target)
	if b.target == "/" {
		return errors.New("the target is the container's root")
	}
	return nil
}
