package launcher_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/berth-hpc/berth/launcher"
	"golang.org/x/sys/unix"
)

// hostileBuilder is what a user can make of the process that builds their
// container: it says that the container stands, and sends namespaces of its
// choice as the container's. The request's Workdir says which.
func hostileBuilder(channel *os.File) {
	req, _, err := launcher.ReceiveRequest(channel)
	if err != nil {
		os.Exit(1)
	}
	runtime.LockOSThread() // namespaces are a thread's
	node := map[string]*os.File{}
	for _, kind := range []string{"ipc", "net"} {
		node[kind] = openNS(kind)
	}
	if unix.Unshare(unix.CLONE_NEWNS|unix.CLONE_NEWIPC|unix.CLONE_NEWNET) != nil {
		os.Exit(1)
	}
	mount, ipc, net := openNS("mnt"), openNS("ipc"), openNS("net")
	result, err := launcher.NewResult(nil)
	if err != nil {
		os.Exit(1)
	}
	files := map[string][]*os.File{
		"good":         {mount, result, ipc, net},
		"the node's":   {mount, result, node["ipc"], net},
		"another kind": {mount, result, net, ipc},
		"a file":       {mount, result, result, net},
		"no mount":     {ipc, result, ipc, net},
		"too few":      {mount, result, ipc},
	}[req.Workdir]
	if launcher.SendReply(channel, &launcher.Reply{Ready: true}, files...) != nil {
		os.Exit(1)
	}
	os.Exit(0)
}

// openNS opens a namespace of the calling thread, which alone changes its own.
func openNS(kind string) *os.File {
	f, err := os.Open("/proc/thread-self/ns/" + kind)
	if err != nil {
		os.Exit(1)
	}
	return f
}

// A builder that hands over a namespace which is not the container's own gets
// no container made of it.
func TestBuilderHandsOverAnothersNamespace(t *testing.T) {
	if !launcher.PrivateMounts(t) {
		return
	}
	b := newBed(t)
	users := b.users()
	exe := attackBuilder(t, "builder")
	for name, want := range map[string]string{
		"good": "", "the node's": "ipc namespace is not its own", "another kind": "ipc namespace: namespace of type",
		"a file": "not a namespace", "no mount": "mount namespace: namespace of type", "too few": "sent 3 descriptors",
	} {
		t.Run(name, func(t *testing.T) {
			cr := b.creation(users, false)
			cr.Exe, cr.Request.Workdir = exe, name
			cr.Request.Unshare = []string{launcher.UnshareIPC, launcher.UnshareNet}
			c, err := cr.Create(t.Context())
			if c != nil {
				c.Close()
			}
			if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
				t.Errorf("got %v, want %q", err, want)
			}
		})
	}
}

// attackBuilder is a program to be started in place of berth-create inside: the
// test's own, in one of the modes of TestMain.
func attackBuilder(t *testing.T, mode string) string {
	t.Helper()
	dir := t.TempDir()
	open(t, dir, filepath.Dir(dir))
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	self, script := filepath.Join(dir, "self"), filepath.Join(dir, mode)
	if out, err := exec.Command("cp", exe, self).CombinedOutput(); err != nil {
		t.Fatalf("%v %s", err, out)
	}
	if err := os.WriteFile(script, []byte("#!/bin/sh\nexec "+self+" inside \"$2\" "+mode+"\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	return script
}
