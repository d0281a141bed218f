package deploy

import (
	"testing"

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
