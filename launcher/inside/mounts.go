package inside

import (
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
	named          string // source, before it was opened and attached elsewhere
	by             party
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
	replaces       bool   // takes the place of a symbolic link at target
	isDir          bool   // set when the source was opened
}

// A party is who wants a mount: it decides which rules apply.
type party int

const (
	byBerth party = iota // every container has it
	bySite               // container.mounts
	byJob                // a path that the job's environment names
	byUser               // --container-mounts
)

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
	// An image's localtime is mostly a link to the file of a zone, and that
	// zone must stay what it is.
	zone := file("/etc/localtime", "/etc/localtime")
	zone.replaces = true
	for _, b := range []bind{
		file("/etc/machine-id", "/etc/machine-id"), zone,
		file(filepath.Join(work, "passwd"), "/etc/passwd"), file(filepath.Join(work, "group"), "/etc/group"),
	} {
		b.copied = true
		bs = append(bs, b)
	}
	bs = append(bs, ofJob(req, tree, file)...)
	if req.MountHome && filepath.IsAbs(req.User.Home) {
		bs = append(bs, tree(filepath.Clean(req.User.Home), true))
	}
	if dir := filepath.Clean(req.Job.Dir); wantsDir(req, dir) && !covers(bs, dir) {
		b := tree(dir, true)
		b.yields, b.by = true, byJob
		bs = append(bs, b)
	}
	return bs
}

// ofJob are the paths that Slurm and MPI need, as the user's task told them.
func ofJob(req *launcher.Request, tree func(string, bool) bind, file func(string, string) bind) []bind {
	var bs []bind
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
	for i := range bs {
		bs[i].by = byJob
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
	site, err := siteMounts(req)
	if err != nil {
		return nil, err
	}
	all = append(all, site...)
	for _, value := range req.Mounts {
		bs, err := parseMounts(value, req.Job.Dir)
		if err != nil {
			return nil, err
		}
		for i := range bs {
			bs[i].by = byUser
		}
		all = append(all, bs...)
	}
	return lastWins(all), nil
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
