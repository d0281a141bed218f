package e2e

import (
	"os/exec"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/berth-hpc/berth/testdata/cluster"
)

const mountSocket = "/run/berth-mount.socket"

// lends has n1 serve berth-mount.socket as systemd does: a process a connection.
func (s *site) lends(t *testing.T) {
	t.Helper()
	if _, err := exec.LookPath("systemd-socket-activate"); err != nil {
		t.Skip("needs systemd-socket-activate")
	}
	s.Spawn("lend", cluster.Command{Machine: "n1", Args: []string{
		"systemd-socket-activate", "--seqpacket", "--accept", "--inetd", "--listen=" + mountSocket,
		"/opt/berth/bin/berth", "node", "mount-request",
	}})
	s.MustRun(t.Context(), "n1", "root", "timeout", "100", "sh", "-c",
		"until [ -S "+mountSocket+" ]; do sleep 0.05; done; chmod 666 "+mountSocket)
}

// own runs a script on n1 as a user, outside of any job.
func (s *site) own(t *testing.T, user, script string) cluster.Result {
	t.Helper()
	return s.With(t).Run(t.Context(), "n1", user, "sh", "-c", "cd; "+script)
}

// goodImages tells n1 that its images are good whatever the kernel logs from now
// on: the damage that other tests do shows in the one kernel log of this machine,
// and an image that may be damaged is not lent before a job has verified it.
func (s *site) goodImages(t *testing.T) {
	t.Helper()
	s.n1(t, "mkdir -p -m 700 /run/berth/verified && cd /var/lib/berth/images/sha256 && for i in *; do echo 9223372036854775807 >/run/berth/verified/$i; done")
}

// TestLend: a user's own `berth run` on a node uses the node's image, without a
// byte from the registry, as themself, with their groups, in their own cgroup,
// in the same kernel mount as jobs; when it has ended, so has its lease.
func TestLend(t *testing.T) {
	bothWays(t, func(t *testing.T, s *site) {
		s.lends(t)
		if r := s.as(t, "alice", "srun -w n1 --container-image="+tiny+" true"); r.Code != 0 {
			t.Fatal(r)
		}
		s.With(t).WaitIdle()
		s.goodImages(t)
		before := s.pulled(t)
		r := s.own(t, "alice", "berth run "+tiny+" sh -c '"+
			"id -u; id -G; cat /proc/self/cgroup; grep -c squashfs /proc/self/mountinfo; touch /bin/x; echo pwd $(pwd); ls /run/berth/jobs'; echo code $?; id -u; id -G; cat /proc/self/cgroup; ls .cache/berth/images 2>/dev/null")
		inside, outside, _ := strings.Cut(r.Stdout, "code ")
		for _, line := range strings.Split(strings.TrimSpace(outside), "\n")[1:] {
			if !strings.Contains(inside, line+"\n") {
				t.Errorf("outside %q, inside other: %s", line, inside)
			}
		}
		if strings.Contains(inside, "\n0\npwd") || !strings.Contains(r.Stderr, "Read-only file system") || strings.Contains(outside, "sha256") {
			t.Errorf("%v", r)
		}
		if after := s.pulled(t); after != before {
			t.Errorf("the registry was asked for layers: %s, before %s", after, before)
		}
		leases := "ls /run/berth/sessions/*/leases 2>/dev/null | grep -c p1 || true"
		s.Spawn("own", cluster.Command{Machine: "n1", User: "alice", Args: []string{"sh", "-c", "cd; exec berth run " + tiny + " sh -c 'touch /shared/own; until [ -e /shared/over ]; do sleep 0.1; done; cat /bin/busybox >/shared/read'"}})
		s.With(t).MustRun(t.Context(), "n1", "root", "timeout", "100", "sh", "-c", "until [ -e /shared/own ]; do sleep 0.05; done")
		if got := strings.TrimSpace(s.n1(t, leases)); got != "1" {
			t.Errorf("%s leases while it runs", got)
		}
		// Neither a job's end nor what makes room takes the image from it.
		if r := s.as(t, "bob", "srun -w n1 --container-image="+tiny+" true"); r.Code != 0 {
			t.Error(r)
		}
		s.With(t).WaitIdle()
		if r := s.With(t).Run(t.Context(), "n1", "root", "/opt/berth/bin/berth", "rm", tiny); r.Code != 64 || !strings.Contains(r.Stderr, "process ") {
			t.Errorf("the image can be removed: %v", r)
		}
		s.With(t).MustRun(t.Context(), "n1", "alice", "touch", "/shared/over")
		until(t, 20*time.Second, "the lease ends", func() bool {
			r := s.With(t).Run(t.Context(), "n1", "root", "/opt/berth/bin/berth", "rm", tiny)
			return r.Code == 0
		})
		if got := strings.TrimSpace(s.n1(t, leases)); got != "0" {
			t.Errorf("left: %s", got)
		}
		s.With(t).MustRun(t.Context(), "n1", "root", "test", "-s", "/shared/read")
		s.With(t).MustRun(t.Context(), "n1", "root", "rm", "-f", "/shared/own", "/shared/over", "/shared/read")
	})
}

// pulled counts the layers that the registry has given away.
func (s *site) pulled(t *testing.T) string {
	t.Helper()
	return strings.TrimSpace(s.With(t).MustRun(t.Context(), "ctl", "root", "sh", "-c", "grep -c 'GET .*/blobs/' /var/log/registry.log || true"))
}

// TestLendRights: what a user may not use, or is not there, is refused alike, and
// then pulled into the user's own store with their own login, if they have one.
func TestLendRights(t *testing.T) {
	s := closedSite(t)
	s.lends(t)
	if r := s.as(t, "alice", "srun -w n1 --container-image="+alicesImage+" true"); r.Code != 0 {
		t.Fatal(r)
	}
	s.With(t).WaitIdle()
	s.goodImages(t)
	digest := strings.TrimSpace(s.own(t, "alice", "berth resolve "+alicesImage).Stdout)
	for _, tc := range []struct{ user, image, says string }{
		{"alice", alicesImage, "root"},
		{"bob", alicesImage, "403"},
		{"bob", closed + "/alice/tiny@" + digest, "403"},
		{"bob", closed + "/bob/tiny@" + digest, "no such"},
	} {
		r := s.own(t, tc.user, "berth run "+tc.image+" stat -c %U:%m /bin/busybox; ls -A .cache/berth/images/sha256 2>/dev/null")
		if tc.user == "alice" {
			if strings.HasPrefix(r.Stdout, "alice:") && !strings.Contains(r.Stdout, ".p") {
				continue
			}
		} else if !strings.Contains(r.Stdout, "busybox") && strings.Contains(r.Stderr, "berth: error:") {
			continue
		}
		t.Errorf("%s, %s: %v", tc.user, tc.image, r)
	}
	// A grant that is over: the node asks no registry for it, alice's own berth does.
	s.n1(t, "rm -r /var/lib/berth/grants")
	if r := s.own(t, "alice", "berth --log-level info run "+alicesImage+" echo ran; ls .cache/berth/images/sha256"); !strings.Contains(r.Stdout, "ran\n") || !strings.Contains(r.Stdout, ".p") {
		t.Errorf("alice without a grant: %v", r)
	}
}

// TestLendAttacks sends what no berth would.
func TestLendAttacks(t *testing.T) {
	s := newSite(t)
	s.lends(t)
	if r := s.as(t, "alice", "srun -w n1 --container-image="+tiny+" true"); r.Code != 0 {
		t.Fatal(r)
	}
	s.goodImages(t)
	digest := strings.TrimSpace(s.own(t, "alice", "berth resolve "+tiny).Stdout)
	// lend KEY=VALUE… sends a request with this program's mount namespace, or
	// what the first words say instead, and prints the answer and what came with it.
	const lend = `import array, os, socket, struct, sys
args, files = sys.argv[1:], ["/proc/self/ns/mnt"]
while args and args[0].startswith("--"):
    if args[0] == "--raw": raw = sys.stdin.buffer.read()
    if args[0] == "--file": files = args[1:2]; args = args[1:]
    if args[0] == "--none": files = []
    if args[0] == "--many": files = files * 5
    if args[0] == "--silent": args = None; break
    args = args[1:]
sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
sock.connect("` + mountSocket + `")
if args is not None:
    fds = [os.open(f, os.O_RDONLY) for f in files]
    data = b"".join(a.encode("utf-8", "surrogateescape") + b"\0" for a in args) or raw
    sock.sendmsg([data], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else [])
sock.settimeout(15)
text, anc, _, _ = sock.recvmsg(65536, 256)
for _, _, d in anc:
    print(*[os.readlink("/proc/self/fd/%d" % fd) for fd in array.array("i", d)])
print(text.replace(b"\0", b"; ").decode() or "no answer")
`
	s.With(t).MustRun(t.Context(), "n1", "root", "sh", "-c", "cat >/shared/lend.py <<'EOF'\n"+lend+"EOF")
	send := func(user, args string) cluster.Result {
		return s.own(t, user, "timeout 100 python3 /shared/lend.py "+args)
	}
	request := "image=" + tiny + " digest=" + digest + " cwd=/"
	good := regexp.MustCompile(`^user:\[\d+\] user:\[\d+\] mnt:\[\d+\] /memfd:berth-result \(deleted\) /var/lib/berth/images/\S+/image.json\nok=1; \n$`)
	// Nothing that is sent is a mount, or a descriptor of the store but the config.
	if r := send("alice", request); !good.MatchString(r.Stdout) {
		t.Fatalf("a plain request: %v", r)
	}
	for name, tc := range map[string]struct{ args, says string }{
		"a forged digest":       {"image=" + tiny + " digest=sha256:" + strings.Repeat("0", 64), "no such image"},
		"a path for a digest":   {"image=" + tiny + " digest=../../../etc", "name an image by its digest"},
		"a path for an image":   {"image=/etc/shadow digest=" + digest, "the user's own to mount"},
		"another's repository":  {"image=" + registry + "/other:1 digest=" + digest, "ok=1"}, // public is public
		"somebody else's uid":   {request + " uid=0", "unknown key"},
		"a work folder":         {request + " work=/etc", "unknown key"},
		"no descriptor":         {"--none " + request, "0 descriptors"},
		"many descriptors":      {"--many " + request, "5 descriptors"},
		"a file as view":        {"--file /etc/passwd " + request, "mount namespace"},
		"a user namespace":      {"--file /proc/self/ns/user " + request, "mount namespace"},
		"control characters":    {"\"image=a\nb\" digest=" + digest, "control characters"},
		"no records":            {"hello", "decode"},
		"a mount over the host": {request + " mounts=/etc:../../etc", "leaves the container"},
		"nothing at all":        {"--silent", "read the request"},
	} {
		r := send("alice", tc.args)
		if r.Code != 0 || !strings.Contains(r.Stdout, tc.says) {
			t.Errorf("%s: %v", name, r)
		}
	}
	if r := s.own(t, "alice", "head -c 200000 /dev/zero | timeout 100 python3 /shared/lend.py --raw"); strings.Contains(r.Stdout, "ok=1") {
		t.Errorf("200 kB: %v", r)
	}
	// Root in appearance is who they are; its view of the node is none of root's.
	r := s.own(t, "alice", "unshare -Ur timeout 100 python3 /shared/lend.py "+request+"; unshare -Urm timeout 100 python3 /shared/lend.py "+request)
	first, second, _ := strings.Cut(r.Stdout, "ok=1")
	if !strings.HasPrefix(first, "user:") || !strings.Contains(second, "belongs to another user namespace") {
		t.Errorf("from user namespaces: %v", r)
	}
	if r := s.With(t).Run(t.Context(), "n1", "root", "python3", "/shared/lend.py", "image="+tiny, "digest="+digest); strings.Contains(r.Stdout, "ok=1") {
		t.Errorf("root: %v", r)
	}
	// What can be taken apart in a container that was lent.
	r = s.own(t, "alice", "berth --log-level info run "+tiny+` sh -c '
		mount -o remount,rw / 2>&1; mount -o remount,suid,dev /bin 2>&1; umount /bin 2>&1; mknod /tmp/dev.$$ b 7 0 2>&1
		unshare -Urm sh -c "mount -o remount,suid,dev,bind /bin; umount /bin" 2>&1; touch /bin/x 2>&1; grep -c " /bin ro,nosuid,nodev" /proc/self/mountinfo'`)
	if strings.Contains(r.Stderr, "not from the node's store") || times("(not permitted|denied|Read-only|Invalid argument|must be superuser)", r.Stdout) < 6 || !strings.HasSuffix(r.Stdout, "\n1\n") {
		t.Errorf("in a lent container: %v", r)
	}
	// Many at once get turns or a refusal, and the node lends on.
	r = s.own(t, "alice", "for i in $(seq 40); do timeout 100 python3 /shared/lend.py --silent & done; for i in $(seq 10); do timeout 100 python3 /shared/lend.py "+request+" & done; wait")
	if !strings.Contains(r.Stdout, "are being served") || times("read the request", r.Stdout) > 8 {
		t.Errorf("a flood: %v", r)
	}
	if r := send("bob", request); !strings.Contains(r.Stdout, "ok=1") {
		t.Errorf("bob after a flood: %v", r)
	}
	if r := send("alice", request); !strings.Contains(r.Stdout, "ok=1") {
		t.Errorf("alice after a flood: %v", r)
	}
	// Every lease was a process's that is gone.
	if r := s.With(t).Run(t.Context(), "n1", "root", "sh", "-c", "/opt/berth/bin/berth rm "+tiny+" && ls /run/berth/sessions"); r.Code != 0 || strings.Contains(r.Stdout, ".") && times(`^\d+\.\d+$`, r.Stdout) > 0 {
		t.Errorf("left: %v", r)
	}
}
