package doctor

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/berth-hpc/berth/imagecache/store"
)

func TestClusterStore(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root: a cluster's store is root's")
	}
	for _, tc := range []struct {
		name          string
		prepare       func(dir string) error
		writer, mount bool
		status        Status
		says          string
	}{
		{"writer", func(string) error { return nil }, true, false, OK, "may pull for all"},
		{"reader", func(string) error { return nil }, false, false, OK, "copies what others pull"},
		{"reader that is to mount", func(string) error { return nil }, false, true, Warn, "cannot lease"},
		{"missing", os.Remove, true, false, Warn, "no such file"},
		{"others may write", func(dir string) error { return os.Chmod(dir, 0o777) }, true, false, Warn, "written by others"},
		{"no locks", func(dir string) error {
			return errors.Join(os.Mkdir(filepath.Join(dir, "leases"), 0o755), os.WriteFile(filepath.Join(dir, "locks"), nil, 0o644))
		}, true, false, Warn, "cannot be used"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "cluster")
			if err := errors.Join(os.Mkdir(dir, 0o755), tc.prepare(dir)); err != nil {
				t.Fatal(err)
			}
			n := testNode(t)
			n.ClusterStore = ClusterStore{Dir: dir, Mount: tc.mount, ClusterOptions: store.ClusterOptions{
				Host: "n1", Writer: tc.writer, Stale: time.Minute, Lease: time.Hour, Patience: 5 * time.Second,
			}}
			found := checkClusterStore(t.Context(), n)
			if len(found) != 1 || found[0].Status != tc.status || !strings.Contains(found[0].Detail, tc.says) {
				t.Errorf("%+v", found)
			}
			if left, _ := filepath.Glob(filepath.Join(dir, "locks", ".*")); len(left) > 0 {
				t.Errorf("left: %q", left)
			}
		})
	}
	if found := checkClusterStore(t.Context(), testNode(t)); found != nil {
		t.Errorf("without a store: %+v", found)
	}
}
