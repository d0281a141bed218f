package e2e

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/berth-hpc/berth/testdata/cluster"
	"github.com/berth-hpc/berth/testdata/deploy"
)

// pluginOf is the plugin as built for another release of Slurm.
func pluginOf(t *testing.T, major, minor uint32) string {
	t.Helper()
	path := filepath.Join(deploy.Root(), "build", "lib", "berth", "spank_berth.so")
	f, err := elf.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	symbols, err := f.DynamicSymbols()
	if err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range symbols {
		if s.Name == "plugin_version" {
			section := f.Sections[s.Section]
			at := section.Offset + s.Value - section.Addr
			binary.NativeEndian.PutUint32(data[at:], major<<16|minor<<8)
			return string(data)
		}
	}
	t.Fatal("the plugin has no version")
	return ""
}

// TestDoctor sets up, on one node and each in a mount namespace of its own,
// what keeps Berth from working, and has `berth doctor` find it.
func TestDoctor(t *testing.T) {
	s := newSite(t, withConf("PrologFlags=Alloc"))
	s.as(t, "alice", "srun -w n1 --container-image="+tiny+" true")
	old := cluster.Command{Machine: "n1", Args: []string{"sh", "-c", "mkdir /root/old && cat >/root/old/spank_berth.so"}, Stdin: bytes.NewBufferString(pluginOf(t, 20, 11))}
	if r := s.Do(t.Context(), old); r.Code != 0 {
		t.Fatal(r)
	}

	const (
		conf = "cp -r /etc/slurm /run/conf; mount --bind /run/conf /etc/slurm; cd /etc/slurm; "
		toml = "cp -r /etc/berth /run/conf; mount --bind /run/conf /etc/berth; cd /etc/berth; "
	)
	for _, tc := range []struct {
		name, setup string
		code        int
		want        string // a line
	}{
		{"nothing", "", 0, `ok    squashfs: idmapped`},
		{"run folder missing", "mount -t tmpfs none /run", 0, `ok    run folder: /run/berth is missing; the first job makes it`},
		{"no PrologFlags", conf + "sed -i /PrologFlags/d slurm.conf", 0, `warn  prolog flags: .*; to do: PrologFlags=Alloc in slurm.conf`},
		{"short prolog timeout", conf + "echo PrologEpilogTimeout=3 >>slurm.conf", 75, `fail  prolog timeout: .*drains the node; to do: .*PrologEpilogTimeout=14`},
		{"long wait of the plugin", conf + "echo PrologEpilogTimeout=30 >>slurm.conf; sed -i '1s/$/ prolog_wait=40000/' plugstack.conf", 75, `fail  prolog timeout: .*up to 40s.*; to do: prolog_wait=1000`},
		{"short batch start", conf + "echo BatchStartTimeout=2 >>slurm.conf", 0, `warn  batch start timeout: .*; to do: BatchStartTimeout=10`},
		{"job_container without Contain", conf + "echo JobContainerType=job_container/tmpfs >>slurm.conf", 75, `fail  job container: .*; to do: PrologFlags=Contain`},
		{"plugin not in plugstack.conf", conf + ": >plugstack.conf", 75, `fail  plugstack.conf: no line loads .*; to do: add to plugstack.conf: required /opt/berth/lib/berth/spank_berth.so bindir=/opt/berth/bin libexec=/opt/berth/libexec/berth`},
		{"plugin optional", conf + "sed -i s/required/optional/ plugstack.conf", 0, `warn  plugstack.conf: .*outside of their images; to do: write required`},
		{"plugin missing", conf + "sed -i s/spank_berth/nowhere\\\\/spank_berth/ plugstack.conf", 75, `fail  plugin: .*nowhere/spank_berth.so: no such file.*; to do: install the plugin`},
		{"plugin of another release", conf + "sed -i 's, [^ ]*spank_berth.so, /root/old/spank_berth.so,' plugstack.conf", 75, `fail  plugin: .* was built for Slurm 20.11 and this machine has 22.05, .*; to do: build it against`},
		{"helper missing", conf + "sed -i 's,libexec=[^ ]*,libexec=/nowhere,' plugstack.conf", 75, `fail  plugin: the plugin starts /nowhere/berth-create: no such file.*; to do: correct libexec=`},
		{"settings broken", toml + "echo nonsense >>berth.toml", 75, `fail  settings: read /etc/berth/berth.toml: line \d+.*; to do: correct the file`},
		{"account missing", toml + "printf '[node]\naccount = \"ghost\"\n' >>berth.toml", 75, `fail  account: no account ghost.*; to do: useradd`},
		{"registry down", toml + "printf '[registry.\"10.97.0.1:5999\"]\ninsecure = true\n' >>berth.toml", 75, `fail  registry: 10.97.0.1:5999 does not answer: .*; to do: nothing listens`},
		{"registry of plain http", toml + "sed -i s/true/false/ berth.toml", 75, `fail  registry: 10.97.0.1:5000 does not answer: .*; to do: .*insecure = true`},
		{"store full", "mount -t tmpfs -o mode=755,size=1m none /var/lib/berth", 75, `fail  node store: .* too little for an image; to do: make room`},
		{"store out of inodes", "mount -t tmpfs -o mode=755,size=30g,nr_inodes=9 none /var/lib/berth", 75, `fail  node store: .* too few for an image's files; to do: make room`},
		{"store read-only", "mount -t tmpfs -o mode=755,size=30g,ro none /var/lib/berth", 75, `fail  node store: .*read-only.*; to do: mount it writable`},
		{"store of a user", "mount -t tmpfs -o mode=755,size=30g,uid=2001 none /var/lib/berth", 75, `fail  node store: .*uid 2001.*; to do: chown root:root`},
		{"store open to all", "mount -t tmpfs -o size=30g,mode=1777 none /var/lib/berth", 75, `fail  node store: .*others than root; to do: chmod go-w`},
		{"run folder is a file", "mount -t tmpfs none /run; touch /run/berth", 75, `fail  run folder: /run/berth is no folder.*; to do: remove it`},
		{"no loop devices", "mount --bind /dev/null /dev/loop-control", 75, `fail  loop devices: .*; to do: `},
		{"no loop devices, so no images", "mount --bind /dev/null /dev/loop-control", 75, `fail  squashfs: the kernel can't mount an image: .*; to do: modprobe`},
		{"/dev/fuse for root alone", "touch /run/fuse; chmod 600 /run/fuse; mount --bind /run/fuse /dev/fuse", 0, `warn  FUSE: users can't open it .*berth run unpacks.*; to do: modprobe fuse && chmod 0666 /dev/fuse`},
		{"leftovers", "mkdir -p /run/berth/jobs/4242", 0, `warn  leftovers: .*: 4242; to do: for j in 4242; do printf 'job=%s\\0' \$j \| /opt/berth/bin/berth node cleanup; done`},
		{"leftovers, after the remedy", "printf 'job=4242\\0' | berth node cleanup", 0, `ok    leftovers: no job that is gone`},
	} {
		t.Run(tc.name, func(t *testing.T) {
			script := "rm -rf /run/conf; set -e; " + tc.setup + "\ncd /; exec berth doctor"
			r := s.With(t).Run(t.Context(), "n1", "root", "unshare", "-m", "sh", "-c", script)
			if r.Code != tc.code || !regexp.MustCompile(`(?m)^`+tc.want).MatchString(r.Stdout) {
				t.Errorf("want exit code %d and %s: %v", tc.code, tc.want, r)
			}
			fails := strings.Count("\n"+r.Stdout, "\nfail  ")
			if (fails > 0) != (r.Code == 75) || fails > 2 {
				t.Errorf("%d lines with fail: %v", fails, r)
			}
		})
	}
	t.Run("user", func(t *testing.T) {
		r := s.With(t).Run(t.Context(), "n1", "alice", "berth", "doctor")
		if r.Code != 0 || strings.Contains(r.Stdout, "loop devices") || !strings.Contains(r.Stdout, "\nok    FUSE: ") {
			t.Error(r)
		}
	})
	t.Run("no user namespaces", func(t *testing.T) {
		// In a user namespace: its limit on further ones is its own.
		r := s.With(t).Run(t.Context(), "n1", "alice", "unshare", "--map-current-user", "--keep-caps",
			"sh", "-c", "echo 0 >/proc/sys/user/max_user_namespaces; exec berth doctor")
		want := regexp.MustCompile(`(?m)^fail  user namespaces: .*; to do: .*sysctl -w user.max_user_namespaces=15000`)
		if r.Code != 75 || !want.MatchString(r.Stdout) {
			t.Error(r)
		}
	})
	s.idle(t)
}
