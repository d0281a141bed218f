package e2e

import (
	"regexp"
	"testing"
)

// makeTrees is run by alice in /shared: a folder with a root file system, as
// enroot leaves it, and what looks like one.
const makeTrees = `set -e; cd /shared; rm -rf rootfs theirs closed layout
mkdir -p rootfs/bin rootfs/etc rootfs/work layout/blobs
cp /bin/busybox rootfs/bin/busybox
for a in sh cat touch ls pwd mkdir id; do ln -s busybox rootfs/bin/$a; done
echo "a folder" >rootfs/etc/name
echo "WHENCE=the folder" >rootfs/etc/environment
printf 'mkdir -p "/work" 2> /dev/null\ncd "/work" && unset OLDPWD || exit 1\n' >rootfs/etc/rc
mksquashfs rootfs folder.sqsh -quiet -no-progress -comp gzip -noappend >/dev/null
echo '{}' | tee layout/oci-layout >layout/index.json
ln -sfn rootfs link`

// TestImagesByPath is a folder or a file in the place of an image's name, in
// the job's view of the node.
func TestImagesByPath(t *testing.T) {
	bothWays(t, func(t *testing.T, s *site) {
		if r := s.as(t, "alice", makeTrees); r.Code != 0 {
			t.Fatal(r)
		}
		s.With(t).MustRun(t.Context(), "ctl", "root", "sh", "-c",
			"cd /shared && cp -a rootfs theirs && chown -R root:root theirs && cp -a theirs closed && chmod 700 closed")
		for _, tc := range []struct {
			name, script string
			code         int
			want         string // regular expression over the whole of stdout
			says         string // and one that stderr must match
		}{
			{
				name: "folder", script: "cd /shared; srun -N2 --container-image=./rootfs sh -c 'cat /etc/name; touch /etc/x 2>/dev/null || echo ro'",
				want: `^(a folder\nro\n){2}$|^(a folder\n){2}(ro\n){2}$`,
			},
			{name: "what enroot left", script: "srun --container-image=/shared/rootfs sh -c 'echo $WHENCE in $(pwd)'", want: `^the folder in /work\n$`},
			{name: "link", script: "srun --container-image=/shared/link cat /etc/name", want: `^a folder\n$`},
			{name: "another's folder", script: "srun --container-image=/shared/theirs cat /etc/name", want: `^a folder\n$`},
			{
				name: "writable", script: "srun --container-writable --container-image=/shared/rootfs sh -c 'echo new >/etc/name; cat /etc/name'; cat /shared/rootfs/etc/name",
				want: `^new\na folder\n$`,
			},
			{name: "as root", script: "srun --container-remap-root --container-image=/shared/rootfs id -u", want: `^0\n$`},
			{
				name: "batch", script: `printf '#!/bin/sh\ncat /etc/name\n' >job.sh
				sbatch -W -o /shared/path.out --container-image=/shared/rootfs job.sh >/dev/null && cat /shared/path.out`,
				want: `^a folder\n$`,
			},
			{
				name: "in the job's own /tmp", script: "salloc sh -c 'srun cp -a /shared/rootfs /tmp/mine; srun --container-image=/tmp/mine cat /etc/name; srun rm -rf /tmp/mine' 2>/dev/null",
				want: `^a folder\n$`,
			},
			{name: "squashfs with gzip", script: "srun --container-image=/shared/folder.sqsh sh -c 'cat /etc/name; pwd'", want: `^a folder\n/work\n$`},
			{
				name: "a saved container", script: `cd /shared; PATH=/opt/berth/bin:$PATH; export BERTH_STORE_USER_DIR=/shared/alice-store
				rm -f saved.sqsh; berth run --name saved --remap-root /shared/rootfs sh -c 'echo saved >/etc/name; mkdir /own' &&
				berth save saved saved.sqsh --env FROM=save --workdir /own && berth containers rm saved; rm -rf alice-store
				srun -N2 --container-image=./saved.sqsh sh -c 'echo $(cat /etc/name) $FROM $WHENCE $(pwd)'`,
				want: `^(saved save the folder /own\n){2}$`,
			},
			{name: "closed", script: "srun --container-image=/shared/closed true", code: 1, want: `^$`, says: `/shared/closed.*[Pp]ermission denied`},
			{name: "missing", script: "srun --container-image=/shared/none true", code: 1, want: `^$`, says: `/shared/none: no such file or directory`},
			{name: "layout", script: "srun --container-image=/shared/layout true", code: 1, want: `^$`, says: `has to be converted first[^\n]*\n[^\n]*berth save /shared/layout x\.sqsh`},
			{name: "layout at submission", script: "srun --container-image=oci:/shared/layout true", code: 255, want: `^$`, says: `berth save oci:/shared/layout x\.sqsh`},
		} {
			t.Run(tc.name, func(t *testing.T) {
				r := s.as(t, "alice", tc.script)
				if r.Code != tc.code || !regexp.MustCompile(tc.want).MatchString(r.Stdout) {
					t.Errorf("want exit code %d, stdout %s: %v", tc.code, tc.want, r)
				}
				if !regexp.MustCompile(tc.says).MatchString(r.Stderr) {
					t.Errorf("want stderr %s: %v", tc.says, r)
				}
			})
		}
		s.idle(t)
	}, withJobContainer)
}
