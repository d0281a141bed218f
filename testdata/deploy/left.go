package deploy

import (
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/berth-hpc/berth/testdata/cluster"
)

// leftovers prints what is left of jobs on a node: it prints nothing where all
// is clean. It runs as root on the node.
const leftovers = `
	sub left { my ($what, $dir) = @_; opendir(my $d, $dir) or return; print "$what: $_\n" for grep { !/^\./ || /^\.[^.]/ } readdir $d }
	left("job folder", "/run/berth/jobs");
	left("moved away", $_) for glob "/run/berth/ended.*";
	left("work folder", "/var/lib/berth/tmp");
	left("half an image", "/var/lib/berth/images/.new");
	for my $dir (glob "/proc/[0-9]*") {
		open(my $f, "<", "$dir/cmdline") or next;
		my $line = join " ", split /\0/, <$f> // "";
		print "process: $line\n" if $line =~ m{(^|/)berth(-create|-join)?( |$)};
	}
	if (open(my $ns, "<", "/run/berth/private/mounts.ns")) {
		syscall(308, fileno($ns), 0) == 0 or print "mounts.ns: $!\n"; # setns
		left("image mount", "/images");
		left("pins", "/pins");
	}`

// Leftovers says, a line each, what is left of jobs on a node without any: job
// folders, work folders, processes, image mounts, pinned namespaces. It is
// empty where all is clean.
func Leftovers(t testing.TB, c *cluster.Cluster, node string) string {
	t.Helper()
	return c.MustRun(t.Context(), node, "root", "perl", "-e", leftovers)
}

// LoopDevices are the files below dir, a folder of a machine's as this one sees
// it, that loop devices have. Their paths don't tell: other clusters have the
// same ones.
func LoopDevices(t testing.TB, dir string) (files []string) {
	t.Helper()
	for _, loop := range loops(t) {
		_ = filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
			var st unix.Stat_t
			if err == nil && unix.Lstat(path, &st) == nil && st.Ino == loop.Inode && st.Dev == loop.Device {
				files = append(files, path)
			}
			return nil
		})
	}
	return files
}

func loops(t testing.TB) []unix.LoopInfo64 {
	t.Helper()
	busy, err := filepath.Glob("/sys/block/loop*/loop/backing_file")
	if err != nil {
		t.Fatal(err)
	}
	var all []unix.LoopInfo64
	for _, path := range busy {
		dev, err := os.Open("/dev/" + strings.Split(path, "/")[3])
		if err != nil {
			t.Fatal(err)
		}
		info, err := unix.IoctlLoopGetStatus64(int(dev.Fd()))
		dev.Close()
		if err == nil { // else it was freed meanwhile
			all = append(all, *info)
		}
	}
	return all
}
