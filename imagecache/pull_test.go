package imagecache

import (
	"testing"

	"github.com/berth-hpc/berth/imagecache/store"
)

func openStore(t *testing.T) *store.Store {
	t.Helper()
	s, err := store.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestPullFromRegistry(t *testing.T) {
	r := newTestRegistry(t)
	ref := r.push(t, "team/tool:1", imageOf(t, tarOf(t, dir("bin", 0o755), file("bin/tool", 0o755, "#!/bin/sh\n"))))
	s := openStore(t)
	im, err := Pull(testContext(t), s, ref, FetchOptions{Version: "test"})
	if err != nil {
		t.Fatal(err)
	}
	rec, err := im.Record()
	t.Logf("%+v %v", rec, err)
	m, err := im.Manifest()
	t.Logf("%+v %v", m, err)
	t.Log(r.gets.Load())
}
