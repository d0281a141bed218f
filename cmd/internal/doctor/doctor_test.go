package doctor

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"os/user"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"unsafe"

	"github.com/berth-hpc/berth/imagecache"
	"github.com/berth-hpc/berth/testdata/leaks"
	"github.com/berth-hpc/berth/testdata/registry/server"
	"golang.org/x/sys/unix"
)

// The test binary is also the program that doctor starts for its parts.
func TestMain(m *testing.M) {
	if len(os.Args) == 4 && os.Args[1] == "doctor" {
		os.Exit(answer(Part(os.Args[3])))
	}
	os.Exit(leaks.Checked(m).Run())
}

func answer(part Part) int {
	n, err := ReadNode(os.Stdin)
	if err == nil {
		err = json.NewEncoder(os.Stdout).Encode(RunPart(context.Background(), n, part))
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

func testNode(t *testing.T) *Node {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	return &Node{
		Command: []string{exe}, Libexec: dir, UserDir: dir,
		StoreDir: filepath.Join(dir, "store"), RunDir: filepath.Join(dir, "run"), Account: "berth",
	}
}

// Each finding belongs to a check of the table, in its order, and whatever is
// not fine has a remedy.
func TestExamine(t *testing.T) {
	n := testNode(t)
	known := map[string]int{}
	for i, c := range checks() {
		known[c.name] = i + 1
	}
	last := 0
	for _, f := range Examine(t.Context(), n) {
		switch {
		case known[f.Check] == 0:
			t.Errorf("no such check: %+v", f)
		case known[f.Check] < last:
			t.Errorf("out of order: %+v", f)
		case f.Detail == "" || strings.Contains(f.Detail+f.Remedy, "\n"):
			t.Errorf("not one line: %+v", f)
		case (f.Status == OK) != (f.Remedy == ""):
			t.Errorf("remedy: %+v", f)
		}
		last = known[f.Check]
	}
	if last == 0 {
		t.Error("nothing was examined")
	}
}

// find returns the worst finding of a check.
func find(t *testing.T, found []Finding, check string) Finding {
	t.Helper()
	worst := map[Status]int{OK: 1, Warn: 2, Fail: 3}
	var f Finding
	for _, g := range found {
		if g.Check == check && worst[g.Status] > worst[f.Status] {
			f = g
		}
	}
	if f.Check == "" {
		t.Fatalf("no finding of %s in %+v", check, found)
	}
	return f
}

// TestMissingCalls forbids a system call to a part, as a kernel without it
// would, and has it look.
func TestMissingCalls(t *testing.T) {
	for _, tc := range []struct {
		name         string
		call         uint32
		part         Part
		check        string
		status       Status
		says, remedy string
	}{
		{"mount_setattr", unix.SYS_MOUNT_SETATTR, Here, "kernel calls", Fail, "lacks mount_setattr,", "a newer kernel"},
		{"openat2", unix.SYS_OPENAT2, Here, "kernel calls", Fail, "lacks openat2,", "a newer kernel"},
		{"no squashfs", unix.SYS_FSOPEN, Mounts, "squashfs", Fail, "can't mount an image", "modprobe squashfs"},
		{"no idmapped mounts", unix.SYS_MOUNT_SETATTR, Mounts, "squashfs", Warn, "belong to nobody, and writable containers use FUSE", "nothing need be done"},
		{"no attributes in memory", unix.SYS_SETXATTR, Inside, "writable containers", Warn, "changes go to container.scratch", "Linux 6.6"},
		{"no filters", unix.SYS_SECCOMP, Inside, "root in appearance", Warn, "can't be installed", "CONFIG_SECCOMP_FILTER"},
		{"all there", unix.SYS_SWAPON, Inside, "writable containers", OK, "", ""},
		{"all there", unix.SYS_SWAPON, Inside, "root in appearance", OK, "", ""},
		{"all there", unix.SYS_SWAPON, Mounts, "squashfs", OK, "", ""},
		{"all there", unix.SYS_SWAPON, Here, "kernel calls", OK, "", ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			n := testNode(t)
			n.IDMap = true
			attr := &syscall.SysProcAttr{}
			if tc.part == Inside {
				var err error
				if attr, err = attributes(n, Inside); err != nil {
					t.Fatal(err)
				}
			}
			if tc.part == Mounts {
				if os.Getuid() != 0 {
					t.Skip("only root can mount")
				}
				attr.Cloneflags = unix.CLONE_NEWNS
			}
			var found []Finding
			err := withoutCall(tc.call, func() (err error) {
				found, err = spawn(t.Context(), n, tc.part, attr)
				return err
			})
			if err != nil {
				t.Fatal(err)
			}
			f := find(t, found, tc.check)
			if f.Status != tc.status || !strings.Contains(f.Detail, tc.says) || !strings.Contains(f.Remedy, tc.remedy) {
				t.Errorf("%+v", f)
			}
		})
	}
}

// TestNamespaceWithoutRights: AppArmor lets users make a namespace and takes
// the rights in it. A process that is not the namespace's root has none either.
func TestNamespaceWithoutRights(t *testing.T) {
	attr := &syscall.SysProcAttr{
		Cloneflags:  unix.CLONE_NEWUSER | unix.CLONE_NEWNS,
		UidMappings: []syscall.SysProcIDMap{{ContainerID: 1000, HostID: os.Getuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{ContainerID: 1000, HostID: os.Getgid(), Size: 1}},
	}
	found, err := spawn(t.Context(), testNode(t), Inside, attr)
	if err != nil {
		t.Skipf("no user namespaces here: %v", err)
	}
	f := find(t, found, "overlay")
	if f.Status != Fail || !strings.Contains(f.Detail, "gives no right to mount") || !strings.Contains(f.Remedy, "security module") {
		t.Errorf("%+v", f)
	}
}

// TestConverter: an image is really converted, and what keeps it from that is
// told with its remedy.
func TestConverter(t *testing.T) {
	if err := convertEmpty(t.Context(), t.TempDir()); err != nil {
		t.Error(err)
	}
	gone := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(gone, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := convertEmpty(t.Context(), gone); err == nil {
		t.Error("converted into a file")
	}
}

// TestAccount: whoever looks after no cluster needs no account for one.
func TestAccount(t *testing.T) {
	n := testNode(t)
	slurm, _ := readSlurm(n) // this machine's own
	if f := accountFinding(n, user.UnknownUserError("berth")); slurm == nil && f.Status != Warn || !strings.Contains(f.Remedy, "useradd") {
		t.Errorf("unmanaged: %+v", f)
	}
	n.StoreDir = t.TempDir()
	if f := accountFinding(n, user.UnknownUserError("berth")); f.Status != Fail {
		t.Errorf("managed: %+v", f)
	}
	for _, name := range []string{"root", "0:0", "0:5", "x:y"} {
		if _, _, err := account(name); err == nil {
			t.Errorf("account %s is taken", name)
		}
	}
}

// withoutCall calls f on a thread whose children get ENOSYS for a system call.
// The thread ends with it.
func withoutCall(number uint32, f func() error) error {
	done := make(chan error)
	go func() {
		runtime.LockOSThread()
		filter := []unix.SockFilter{
			{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: 0}, // seccomp_data.nr
			{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: number, Jf: 1},
			{Code: unix.BPF_RET | unix.BPF_K, K: 0x00050000 | uint32(unix.ENOSYS)}, // SECCOMP_RET_ERRNO
			{Code: unix.BPF_RET | unix.BPF_K, K: 0x7fff0000},                       // SECCOMP_RET_ALLOW
		}
		program := unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
		err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
		if err == nil {
			err = unix.Prctl(unix.PR_SET_SECCOMP, unix.SECCOMP_MODE_FILTER, uintptr(unsafe.Pointer(&program)), 0, 0)
		}
		if err == nil {
			err = f()
		}
		done <- err
	}()
	return <-done
}

func TestRegistries(t *testing.T) {
	reg := server.Start(t, server.Options{})
	quiet := &http.Server{ErrorLog: log.New(io.Discard, "", 0)} // of refused handshakes
	secret := httptest.NewUnstartedServer(http.NotFoundHandler())
	secret.Config = quiet
	secret.StartTLS()
	defer secret.Close()
	n := testNode(t)
	n.Network.Hosts = map[string]imagecache.Host{
		reg.Host:        {Mirrors: []string{"127.0.0.1:1/mirror"}},
		"127.0.0.1:2":   {CAFile: "/no/such/file"},
		"no.host.known": {},

		strings.TrimPrefix(secret.URL, "https://"): {},
	}
	found := checkRegistries(t.Context(), n)
	for _, want := range []struct {
		status       Status
		says, remedy string
	}{
		{Fail, strings.TrimPrefix(secret.URL, "https://") + " does not answer: ", "to its CA file"},
		{Fail, "127.0.0.1:1 does not answer: ", "nothing listens"},
		{Fail, "read CA file: open /no/such/file", "look at that file"},
		{OK, reg.Host + " answers", ""},
		{Fail, "no.host.known does not answer: ", ""},
	} {
		if !slices.ContainsFunc(found, func(f Finding) bool {
			return f.Status == want.status && strings.Contains(f.Detail, want.says) && strings.Contains(f.Remedy, want.remedy)
		}) {
			t.Errorf("want %+v in %+v", want, found)
		}
	}
}

func TestSlurm(t *testing.T) {
	const fine = "PrologFlags=Alloc\nProctrackType=proctrack/cgroup\nPrologEpilogTimeout=60\n"
	for _, tc := range []struct {
		name, conf, plugstack, check string
		status                       Status
		says, remedy                 string
	}{
		{"prolog flags", "PrologEpilogTimeout=60\n", "", "prolog flags", Warn, "first step", "PrologFlags=Alloc in slurm.conf"},
		{"alloc", fine, "", "prolog flags", OK, "when a job is allocated", ""},
		{"contain", "prologflags=X11 , Contain", "", "prolog flags", OK, "when a job is allocated", ""},
		{"serial", "PrologFlags=Alloc,Serial", "", "prolog flags", Warn, "one after the other", "remove Serial"},
		{"timeout", "PrologEpilogTimeout=4 # short\n", "", "prolog timeout", Fail, "drains the node", "PrologEpilogTimeout=14"},
		{"timeout of the prolog alone", "PrologEpilogTimeout=60\nPrologTimeout=4", "", "prolog timeout", Fail, "drains the node", "PrologEpilogTimeout=14"},
		{"timeout and the plugin's wait", "PrologEpilogTimeout=30", "required x/spank_berth.so prolog_wait=40000", "prolog timeout", Fail, "up to 40s", "prolog_wait=1000"},
		{"timeout of the epilog", "EpilogTimeout=5", "", "prolog timeout", Warn, "the epilog may take 5s", "PrologEpilogTimeout=20"},
		{"no timeout", "", "", "prolog timeout", OK, "within what Slurm allows", ""},
		{"batch start", "BatchStartTimeout=3", "", "batch start timeout", Warn, "BatchStartTimeout is 3s", "BatchStartTimeout=10"},
		{"default batch start", "", "", "batch start timeout", OK, "10s", ""},
		{"proctrack", "ProctrackType=proctrack/linuxproc", "", "process tracking", Warn, "outlive their job", "proctrack/cgroup"},
		{"job container", "JobContainerType=job_container/tmpfs", "", "job container", Fail, "without PrologFlags=Contain", "PrologFlags=Contain"},
		{"job container and flags", "JobContainerType=job_container/tmpfs\nPrologFlags=contain", "", "job container", OK, "private /tmp", ""},
		{"no plugstack.conf", fine, "-", "plugstack.conf", Fail, "no such file", "required "},
		{"plugstack.conf of others", fine, "required other.so\n# spank_berth.so", "plugstack.conf", Fail, "no --container-image", "add to plugstack.conf: required "},
		{"optional", fine, "optional DIR/spank_berth.so", "plugstack.conf", Warn, "outside of their images", "required for optional"},
		{"required, in an included file", fine, "include DIR/*.stack", "plugstack.conf", OK, "required", ""},
		{"plugin missing", fine, "required DIR/spank_berth.so", "plugin", Fail, "no such file", "optional for required"},
		{"plugin not in PluginDir", fine + "PluginDir=DIR", "required spank_berth.so", "plugin", Fail, "is not in", "optional for required"},
		{"plugin is no plugin", fine, "required DIR/text/spank_berth.so", "plugin", Fail, "is no plugin", "install"},
		{"helper missing", fine, "required DIR/text/spank_berth.so libexec=DIR/nowhere", "plugin", Fail, "nowhere/berth-create: no such file", "libexec= in plugstack.conf"},
		{"included slurm.conf missing", "include DIR/none.conf", "", "slurm.conf", Fail, "no such file", "let everyone read"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			n := testNode(t)
			dir := filepath.Dir(n.StoreDir)
			place := func(name, text string) {
				path := filepath.Join(dir, name)
				err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(strings.ReplaceAll(text, "DIR", dir)), 0o644))
				if err != nil {
					t.Fatal(err)
				}
			}
			n.SlurmConf = filepath.Join(dir, "slurm.conf")
			place("slurm.conf", tc.conf)
			place("berth.stack", "required DIR/text/spank_berth.so")
			place("text/spank_berth.so", "text")
			if tc.plugstack != "-" {
				place("plugstack.conf", tc.plugstack)
			}
			f := find(t, RunPart(t.Context(), n, Here), tc.check)
			if f.Status != tc.status || !strings.Contains(f.Detail, tc.says) || !strings.Contains(f.Remedy, tc.remedy) {
				t.Errorf("%+v", f)
			}
		})
	}
}

func TestReleases(t *testing.T) {
	if got := releaseOf(22<<16 | 5<<8 | 8); got != "22.05" {
		t.Error(got)
	}
	for text, want := range map[string]string{"slurm-wlm 22.05.8\n": "22.05", "slurm 24.11.0-0rc1": "24.11", "": "", "slurm": ""} {
		if got, err := releaseIn(text); got != want || (err == nil) != (want != "") {
			t.Errorf("%q: %q, %v", text, got, err)
		}
	}
}

// TestSubIDFiles: a file that others may write fails every job that needs it,
// and one that is not there gives nobody anything.
func TestSubIDFiles(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("the files have to be root's")
	}
	path := filepath.Join(t.TempDir(), "subuid")
	if found := subIDFiles(path); len(found) != 1 || found[0].Status != Warn || !strings.Contains(found[0].Detail, "nobody has") {
		t.Errorf("no file: %+v", found)
	}
	if err := os.WriteFile(path, []byte("alice:200000:65536\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if found := subIDFiles(path); found != nil {
		t.Errorf("a good one: %+v", found)
	}
	if err := os.Chmod(path, 0o666); err != nil {
		t.Fatal(err)
	}
	if found := subIDFiles(path); len(found) != 1 || found[0].Status != Fail || !strings.Contains(found[0].Remedy, "chmod 644") {
		t.Errorf("everybody's: %+v", found)
	}
	if found := checkSubIDs(t.Context(), testNode(t)); found != nil {
		t.Errorf("switched off: %+v", found)
	}
}
