package packages

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/berth-hpc/berth/testdata/cluster"
	"github.com/berth-hpc/berth/testdata/images"
)

const registry = "10.97.0.1:5000"

// everything lists what is on a machine of its own: names, modes, owners,
// sizes, and where links lead. What any installation changes is left out, and
// the account, which stays.
const everything = `
find / /usr /etc -xdev \( -path /proc -o -path /home -o -path /tmp -o -path /var/log -o -path /var/spool -o -path /shared -o -path /root -o -path /var/lib/registry \
  -o -path /var/cache -o -path /var/lib/dpkg -o -path /run/munge -o -path /run/slurmd.pid \) -prune -o -printf '%p %M %U %G %l\n' >/tmp/all
find /usr /etc -xdev \( -path /etc/slurm -o -name ld.so.cache \) -prune -o -type f -print0 | xargs -0 sha256sum >>/tmp/all
find /run /var/lib/berth /etc/berth -printf '%p\n' 2>/dev/null | grep berth >>/tmp/all
grep -h . /etc/passwd /etc/group | grep -v ^berth: >>/tmp/all
dpkg -l | grep -F berth >>/tmp/all
grep -vE '(^|  )/etc/((passwd|group|shadow|gshadow)-?|\.pwd\.lock)( |$)' /tmp/all | LC_ALL=C sort -u`

// TestInstalledAndRemoved installs the debs as an administrator does on a node
// and the submit host, runs jobs, and removes all of it.
func TestInstalledAndRemoved(t *testing.T) {
	debs := built(t)
	top, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	if err := cluster.Build(top); err != nil {
		t.Fatal(err)
	}
	images.Layout(t, "tiny")
	tools := filepath.Join(top, "build", "bin")
	c := cluster.Up(t, cluster.Options{
		Nodes: 1, Root: images.Tree(t, "node"), Conf: []string{"PrologFlags=Alloc"},
		Plugstack: []string{"include /etc/plugstack.conf.d/*"},
		ReadOnlyBind: []string{
			images.CacheDir() + ":" + images.CacheDir(), debs + ":/opt/debs",
			tools + "/test-registry:/opt/test-registry", tools + "/test-images:/opt/test-images",
		},
	})
	s := machines{c, t}
	// As AppArmor 4 has it; n1 is a machine with an older one, or none.
	s.sh("ctl", "mkdir -p /etc/apparmor.d/abi && touch /etc/apparmor.d/abi/4.0")
	before := map[string]string{}
	for _, m := range []string{"n1", "ctl"} {
		s.sh(m, "rmdir /var/lib/berth /etc/berth; mkdir -p /var/lib/systemd/timers /etc/systemd/system")
		before[m] = s.sh(m, everything)
	}
	for _, m := range []string{"n1", "ctl"} {
		s.install(m)
	}
	s.sh("ctl", `(/opt/test-registry --listen `+registry+` --dir /var/lib/registry --ready-file /tmp/ready >/tmp/registry.log 2>&1 &)
timeout 100 sh -c 'until [ -s /tmp/ready ]; do sleep 0.05; done'; /opt/test-images push --registry `+registry+` tiny:1`)
	t.Run("units", func(t *testing.T) { s.with(t).units() })
	t.Run("jobs", func(t *testing.T) { s.with(t).jobs() })
	t.Run("completion", func(t *testing.T) { s.with(t).completion() })
	c.WaitIdle()
	for _, m := range []string{"n1", "ctl"} {
		s.with(t).remove(m, before[m])
	}
}

// machines are those of a cluster, in a test.
type machines struct {
	*cluster.Cluster
	t *testing.T
}

func (s machines) with(t *testing.T) machines { return machines{s.Cluster.With(t), t} }

// sh runs a script as root and returns what it prints.
func (s machines) sh(machine, script string) string {
	s.t.Helper()
	return s.MustRun(s.t.Context(), machine, "root", "bash", "-c", script)
}

// install installs, configures and enables, as docs/install-slurm.md says.
// Installing alone starts and enables nothing.
func (s machines) install(machine string) {
	s.t.Helper()
	s.sh(machine, "dpkg -i /opt/debs/*.deb >/tmp/dpkg.log 2>&1 || { cat /tmp/dpkg.log; exit 1; }; rm /tmp/dpkg.log")
	if got := s.sh(machine, "id -u berth >/dev/null && getent passwd berth | cut -d: -f7; stat -c '%a %U' /var/lib/berth; find /etc/systemd -name 'berth*'; ls /etc/plugstack.conf.d 2>&1 || :"); !strings.HasPrefix(got, "/usr/sbin/nologin\n755 root\nls: cannot access") {
		s.t.Errorf("%s after the installation: %s", machine, got)
	}
	profile := map[string]string{"ctl": "/usr/share/berth/apparmor/berth\n"}[machine]
	if got := s.sh(machine, "readlink /etc/apparmor.d/berth || :"); got != profile {
		s.t.Errorf("%s: AppArmor's profile: %q", machine, got)
	}
	if r := s.Run(s.t.Context(), machine, "alice", "srun", "--container-image=x", "true"); !strings.Contains(r.Stderr, "unrecognized option") {
		s.t.Errorf("%s: the plugin is loaded before somebody said so: %v", machine, r)
	}
	s.sh(machine, `printf '[registry."`+registry+`"]\ninsecure = true\n' >/etc/berth/berth.toml
mkdir /etc/plugstack.conf.d && ln -s /usr/share/berth/slurm/plugstack.conf /etc/plugstack.conf.d/berth.conf`)
	if machine != "ctl" {
		s.sh(machine, `kill "$(cat /run/slurmd.pid)"; timeout 100 sh -c 'while pgrep -x slurmd; do sleep 0.05; done' >/dev/null; slurmd`)
		s.WaitIdle()
	}
}

// units have systemd look at what is installed for it.
func (s machines) units() {
	if got := s.sh("n1", "systemd-analyze verify --man=no /usr/lib/systemd/system/berth-* 2>&1"); got != "" {
		s.t.Errorf("systemd-analyze: %s", got)
	}
	got := s.sh("n1", `mkdir -p /tmp/root/etc /tmp/root/usr/lib && cp -r /usr/lib/sysusers.d /usr/lib/tmpfiles.d /tmp/root/usr/lib
systemd-sysusers --root=/tmp/root berth.conf 2>&1 | grep -v ^Creating; systemd-tmpfiles --root=/tmp/root --create berth.conf berth-slurm.conf 2>&1
grep ^berth: /tmp/root/etc/passwd | cut -d: -f1,6,7; stat -c '%n %a' /tmp/root/var/lib/berth /tmp/root/run/berth-oci; rm -r /tmp/root`)
	if got != "berth:/:/usr/sbin/nologin\n/tmp/root/var/lib/berth 755\n/tmp/root/run/berth-oci 1777\n" {
		s.t.Errorf("sysusers and tmpfiles: %s", got)
	}
}

func (s machines) jobs() {
	image := "--container-image=" + registry + "/tiny:1"
	r := s.Run(s.t.Context(), "ctl", "alice", "srun", image, "sh", "-c", "echo $TINY_IMAGE $(id -u)")
	if r.Code != 0 || r.Stdout != "1 2001\n" {
		s.t.Errorf("srun: %v", r)
	}
	r = s.Run(s.t.Context(), "ctl", "alice", "sh", "-c", "cd; printf '#!/bin/sh\\necho $TINY_IMAGE in batch\\n' >job; sbatch -W -Q -o out "+image+" job && cat out")
	if r.Code != 0 || r.Stdout != "1 in batch\n" {
		s.t.Errorf("sbatch: %v", r)
	}
	if got := s.sh("n1", "berth images --json | grep -c tiny:1; cat /run/berth/step.log | wc -l"); strings.HasPrefix(got, "0") {
		s.t.Errorf("the node has no image: %s", got)
	}
}

// completion has each shell complete a command, an option, a value and an
// image of the store.
func (s machines) completion() {
	for line, want := range map[string]string{
		"berth imag":                             "images",
		"berth run --hos":                        "--host-mpi",
		"berth --progress=l":                     "lines",
		"berth config te":                        "template",
		"berth rm 10.97.0.1:5":                   "5000/tiny:1",
		"berth run " + registry + "/tiny:1 sh -": "",
	} {
		script := `. /usr/share/bash-completion/bash_completion; _completion_loader berth
COMP_LINE='` + line + `'; COMP_POINT=${#COMP_LINE}; _berth; printf '%s\n' "${COMPREPLY[@]}"`
		if got := strings.TrimSpace(s.sh("n1", script)); got != want {
			s.t.Errorf("bash, %s: %q, want %q", line, got, want)
		}
	}
}

// inUse is a machine on which an administrator enabled what there is, a timer
// ran, and a job has a container. The cluster's /etc/slurm is read-only.
const inUse = `
mkdir -p /etc/systemd/system/sockets.target.wants /run/berth/jobs/77
ln -s /usr/lib/systemd/system/berth-mount.socket /etc/systemd/system/sockets.target.wants/
touch /var/lib/systemd/timers/stamp-berth-warm.timer
cp -r /etc/slurm /tmp/slurm && mkdir -p /tmp/slurm/plugstack.conf.d
ln -s /usr/share/berth/slurm/plugstack.conf /tmp/slurm/plugstack.conf.d/berth.conf
mount --bind /tmp/slurm /etc/slurm`

// remove removes the packages, looks that the store is still there, purges them
// and compares the machine with what it was.
func (s machines) remove(machine, before string) {
	s.t.Helper()
	names := "berth-slurm-22.05 berth-pbs berth"
	s.sh(machine, inUse)
	s.sh(machine, "dpkg -r "+names+" >/tmp/removed 2>&1")
	if got := s.sh(machine, `ls -d /etc/berth/berth.toml /var/lib/berth /run/berth/jobs /usr/bin/berth /usr/libexec/berth 2>/dev/null
ls -A /etc/systemd/system/sockets.target.wants /etc/slurm/plugstack.conf.d; rm -r /run/berth/jobs/77
rmdir /etc/systemd/system/sockets.target.wants; umount /etc/slurm`); got != "/etc/berth/berth.toml\n/run/berth/jobs\n/var/lib/berth\n"+
		"/etc/slurm/plugstack.conf.d:\n\n/etc/systemd/system/sockets.target.wants:\n" {
		s.t.Errorf("%s after the removal: %s", machine, got)
	}
	s.sh(machine, "dpkg -P "+names+" >/dev/null && rm -r /etc/plugstack.conf.d")
	after := s.sh(machine, everything)
	if diff := difference(s.t, before, after); diff != "" {
		s.t.Errorf("%s, before and after:\n%s", machine, diff)
	}
	if r := s.Run(s.t.Context(), machine, "alice", "true"); r.Code != 0 {
		s.t.Errorf("%s: %v", machine, r)
	}
}

func difference(t *testing.T, before, after string) string {
	t.Helper()
	if before == after {
		return ""
	}
	dir := t.TempDir()
	for name, text := range map[string]string{"before": before, "after": after} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return output(t, "sh", "-c", "diff -U0 "+dir+"/before "+dir+"/after || :")
}
