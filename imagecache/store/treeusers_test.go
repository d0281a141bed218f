package store

import "testing"

func TestTreeMarks(t *testing.T) {
	const mounts = `22 1 254:0 / / rw - ext4 /dev/vda rw
30 22 254:1 /vol/home /home rw shared:1 - xfs /dev/vdb rw
31 30 254:2 / /home/ann/scr\040atch rw - tmpfs tmp rw
`
	for _, test := range []struct {
		name, tree, real, line string
		want                   bool
	}{
		{"a bind of a part", "/home/ann/u/k", "/home/ann/u/k", "40 39 254:1 /vol/home/ann/u/k/usr /stage/usr ro - xfs /dev/vdb rw\n", true},
		{"a bind of all", "/home/ann/u/k", "/home/ann/u/k", "40 39 254:1 /vol/home/ann/u/k /stage ro - xfs /dev/vdb rw\n", true},
		{"another image's", "/home/ann/u/k", "/home/ann/u/k", "40 39 254:1 /vol/home/ann/u/k2/usr /stage/usr ro - xfs /dev/vdb rw\n", false},
		{"another store's", "/home/ann/u/k", "/home/ann/u/k", "40 39 254:0 /tmp/u/k/usr /stage/usr ro - ext4 /dev/vda rw\n", false},
		{"on the root file system", "/srv/u/k", "/srv/u/k", "40 39 254:0 /srv/u/k/usr /stage/usr ro - ext4 /dev/vda rw\n", true},
		{"a path with a space", "/home/ann/scr atch/k", "/home/ann/scr atch/k", "40 39 254:2 /k/usr /stage/usr ro - tmpfs tmp rw\n", true},
		{"the only lower folder", "/srv/u/k", "/srv/u/k", "40 39 0:50 / /stage rw - overlay none rw,lowerdir=/srv/u/k,upperdir=/x\n", true},
		{"one of two", "/link/u/k", "/srv/u/k", "40 39 0:50 / /stage ro - overlay none ro,lowerdir=/stage/points:/link/u/k/usr\n", true},
		{"the last of two", "/srv/u/k", "/srv/u/k", "40 39 0:50 / /stage ro - overlay none ro,lowerdir=/stage/points:/srv/u/k\n", true},
		{"another's overlay", "/srv/u/k", "/srv/u/k", "40 39 0:50 / /stage rw - overlay none rw,lowerdir=/srv/u/k2,upperdir=/x\n", false},
	} {
		if got := containsAny(test.line, treeMarks(test.tree, test.real, mounts)); got != test.want {
			t.Errorf("%s: %v; marks %q", test.name, got, treeMarks(test.tree, test.real, mounts))
		}
	}
}
