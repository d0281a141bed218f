package inside

import (
	"fmt"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/berth-hpc/berth/launcher"
	"golang.org/x/sys/unix"
)

// A bind is one mount of the container, before its target is resolved in the
// image. Optional ones are skipped when the source does not exist.
type bind struct {
	source, target string
	readonly       bool
	optional       bool
	flags          int    // MS_NOSUID, MS_NODEV, MS_NOEXEC
	propagation    int    // MS_SLAVE|MS_REC unless the user says otherwise
	single         bool   // not recursive
	tmpfs          bool   // a new tmpfs; source is unused
	data           string // options of the tmpfs
	remove         bool   // umount: takes a default mount away
	yields         bool   // left out when the image has something at target
	copied         bool   // a file that a writable root gets a copy of instead
}

// flagWords are the flags of --container-mounts, joined by "+", with the
// meaning they have in mount(8) and enroot's fstab.
func (b *bind) setFlag(word string) error {
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
		return b.setPropagation(word)
	}
	return nil
}

func (b *bind) setPropagation(word string) error {
	kinds := map[string]int{
		"private": unix.MS_PRIVATE, "slave": unix.MS_SLAVE,
		"shared": unix.MS_SHARED, "unbindable": unix.MS_UNBINDABLE,
	}
	kind, ok := kinds[strings.TrimPrefix(word, "r")]
	switch {
	case ok && strings.HasPrefix(word, "r"):
		b.propagation = kind | unix.MS_REC
	case ok:
		b.propagation = kind
	case strings.HasPrefix(word, "x-"):
		// x-create=… says what to create; targets are always created here.
	default:
		return fmt.Errorf("unknown flag %q", word)
	}
	return nil
}

// parseMounts reads the value of one --container-mounts option,
// SRC:DST[:FLAGS][,...], where SRC alone means SRC:SRC. Relative sources are
// taken from dir, the task's working directory.
func parseMounts(value, dir string) ([]bind, error) {
	var bs []bind
	for _, item := range strings.Split(value, ",") {
		b, err := parseMount(item, dir)
		if err != nil {
			return nil, userError(fmt.Sprintf("invalid mount %q: %v", item, err),
				"write SRC:DST or SRC:DST:FLAGS, as in /data:/data:ro")
		}
		bs = append(bs, b)
	}
	return bs, nil
}

func parseMount(item, dir string) (bind, error) {
	fields := strings.Split(item, ":")
	if len(fields) == 2 && hasFlagsOnly(fields) {
		fields = []string{fields[0], fields[0], fields[1]}
	}
	b := bind{source: fields[0], target: fields[0], propagation: unix.MS_SLAVE | unix.MS_REC}
	if len(fields) > 3 {
		return b, fmt.Errorf("too many colons")
	}
	if len(fields) > 1 {
		b.target = fields[1]
	}
	switch {
	case b.source == "tmpfs" && len(fields) > 1:
		b.tmpfs = true
		b.flags = unix.MS_NOSUID | unix.MS_NODEV
		if len(fields) > 2 {
			b.data = strings.ReplaceAll(fields[2], "+", ",")
		}
		return b, checkTarget(&b)
	case b.source == "umount" && len(fields) == 2:
		b.remove = true
		return b, checkTarget(&b)
	case !strings.HasPrefix(b.source, "/") && !strings.HasPrefix(b.source, "."):
		return b, fmt.Errorf("the source must begin with a slash or a dot")
	}
	if !filepath.IsAbs(b.source) {
		b.source = filepath.Join(dir, b.source)
		if len(fields) == 1 {
			b.target = b.source
		}
	}
	if len(fields) > 2 {
		for _, word := range strings.Split(fields[2], "+") {
			if err := b.setFlag(word); err != nil {
				return b, err
			}
		}
	}
	return b, checkTarget(&b)
}

// hasFlagsOnly recognises SRC:FLAGS. A target begins with / or ., so nothing
// else can be meant.
func hasFlagsOnly(fields []string) bool {
	path := strings.HasPrefix(fields[0], "/") || strings.HasPrefix(fields[0], ".")
	return path && fields[1] != "" && !strings.HasPrefix(fields[1], "/") && !strings.HasPrefix(fields[1], ".")
}

// checkTarget refuses targets that leave the root file system. Symbolic links
// on the way are resolved inside it later.
func checkTarget(b *bind) error {
	if b.target == "" {
		return fmt.Errorf("the target is empty")
	}
	if rel := path.Clean(b.target); rel == ".." || strings.HasPrefix(rel, "../") {
		return fmt.Errorf("the target leaves the container")
	}
	b.target = path.Join("/", b.target)
	if b.target == "/" {
		return fmt.Errorf("the target can't be /")
	}
	return nil
}

// defaults are the mounts every container has: kernel file systems, the
// host's name service files, and the folders of the job that Slurm's own
// steps after task_init and MPI need at the same path.
func defaults(req *launcher.Request, work string) []bind {
	tree := func(p string, optional bool) bind {
		return bind{source: p, target: p, optional: optional, propagation: unix.MS_SLAVE | unix.MS_REC}
	}
	file := fileBind
	bs := []bind{tree("/proc", false), tree("/sys", false), tree("/dev", false), tree("/tmp", true), tree("/var/tmp", true)}
	for _, f := range []string{"/etc/hosts", "/etc/hostname", "/etc/resolv.conf"} {
		bs = append(bs, file(f, f))
	}
	for _, b := range []bind{
		file("/etc/machine-id", "/etc/machine-id"), file("/etc/localtime", "/etc/localtime"),
		file(filepath.Join(work, "passwd"), "/etc/passwd"), file(filepath.Join(work, "group"), "/etc/group"),
	} {
		b.copied = true
		bs = append(bs, b)
	}
	for _, p := range []string{req.Job.TmpDir, req.Job.Spool, req.Job.PMIx} {
		if filepath.IsAbs(p) {
			bs = append(bs, tree(filepath.Clean(p), true))
		}
	}
	for _, f := range slices.Concat(req.Job.PrologFile, req.Job.Visible) {
		if filepath.IsAbs(f) {
			bs = append(bs, file(f, f))
		}
	}
	if req.MountHome && filepath.IsAbs(req.User.Home) {
		bs = append(bs, tree(filepath.Clean(req.User.Home), true))
	}
	if dir := filepath.Clean(req.Job.Dir); wantsDir(req, dir) && !covers(bs, dir) {
		b := tree(dir, true)
		b.yields = true
		bs = append(bs, b)
	}
	return bs
}

// fileBind shows a file read-only, if there is one.
func fileBind(source, target string) bind {
	return bind{source: source, target: target, readonly: true, optional: true, propagation: unix.MS_SLAVE | unix.MS_REC}
}

// wantsDir says whether the job's folder is to be shown. It must not bring a
// home along that is to stay hidden.
func wantsDir(req *launcher.Request, dir string) bool {
	if !req.MountDir || !filepath.IsAbs(dir) || dir == "/" {
		return false
	}
	home := filepath.Clean(req.User.Home)
	return req.MountHome || dir != home && !strings.HasPrefix(home, dir+"/")
}

// covers tells whether one of bs shows the host's dir already.
func covers(bs []bind, dir string) bool {
	for _, b := range bs {
		if dir == b.target || strings.HasPrefix(dir, b.target+"/") {
			return true
		}
	}
	return false
}

// plan is the ordered list of mounts: defaults, those of devices, the site's,
// the user's. A mount onto the same target as an earlier one replaces it.
func plan(req *launcher.Request, work string, devices []bind) ([]bind, error) {
	all := append(defaults(req, work), devices...)
	for _, value := range req.SiteMounts {
		bs, err := parseMounts(expand(value, req), "/")
		if err != nil {
			return nil, err
		}
		for i := range bs {
			bs[i].optional = true
		}
		all = append(all, bs...)
	}
	for _, value := range req.Mounts {
		bs, err := parseMounts(value, req.Job.Dir)
		if err != nil {
			return nil, err
		}
		all = append(all, bs...)
	}
	return lastWins(all), nil
}

// expand puts the user's name and home into a site's mount, as in /scratch/%u.
func expand(value string, req *launcher.Request) string {
	return strings.NewReplacer("%%", "%", "%u", req.User.Name, "%h", req.User.Home).Replace(value)
}

func lastWins(all []bind) []bind {
	var out []bind
	for i, b := range all {
		replaced := b.remove
		for _, later := range all[i+1:] {
			replaced = replaced || later.target == b.target
		}
		if !replaced {
			out = append(out, b)
		}
	}
	return out
}
