package doctor

import (
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestGroups(t *testing.T) {
	if f := groupsFinding([]int{5, 5}, 5); f != nil {
		t.Errorf("the primary group alone: %+v", f)
	}
	f := groupsFinding([]int{7, 5, 6, 7}, 5)
	if len(f) != 1 || f[0].Status != OK || !strings.Contains(f[0].Detail, "6, 7 are shown as 65534") {
		t.Errorf("%+v", f)
	}
}

func TestMountSocket(t *testing.T) {
	n := &Node{MountSocket: filepath.Join(t.TempDir(), "s")}
	if f := checkMountSocket(t.Context(), n); f != nil {
		t.Errorf("not enabled: %+v", f)
	}
	l, err := net.ListenUnix("unixpacket", &net.UnixAddr{Name: n.MountSocket, Net: "unixpacket"})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	for mode, want := range map[os.FileMode]Status{0o600: Warn, 0o666: OK} {
		if err := os.Chmod(n.MountSocket, mode); err != nil {
			t.Fatal(err)
		}
		if os.Getuid() != 0 {
			want = Warn // it is not root's
		}
		if f := checkMountSocket(t.Context(), n); len(f) != 1 || f[0].Status != want {
			t.Errorf("mode %o: %+v", mode, f)
		}
	}
	n.MountSocket = filepath.Dir(n.MountSocket)
	if f := checkMountSocket(t.Context(), n); len(f) != 1 || f[0].Status != Warn {
		t.Errorf("a folder: %+v", f)
	}
}
