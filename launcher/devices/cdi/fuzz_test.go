package cdi

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/berth-hpc/berth/launcher/devices"
	"github.com/berth-hpc/berth/launcher/trust"
)

// FuzzLoad: a spec file is used or is a problem in one line, and never takes a
// good one beside it away. What is used reaches who builds containers as it is,
// and each of its devices can be chosen there.
func FuzzLoad(f *testing.F) {
	f.Add([]byte("cdiVersion: 0.6.0\nkind: vendor.com/gpu\ndevices:\n- name: '0'\n  containerEdits:\n    deviceNodes:\n    - path: /dev/null\n    mounts:\n    - {hostPath: /usr/lib/x.so, containerPath: /usr/lib/x.so, options: [ro, nosuid, bind]}\n    hooks:\n    - {hookName: createContainer, path: /usr/bin/nvidia-cdi-hook, args: [nvidia-cdi-hook, create-symlinks, --link, 'a::/b']}\ncontainerEdits:\n  env: [A=b]\n"))
	f.Add([]byte(`{"cdiVersion":"1.0.0","kind":"vendor.com/net","devices":[{"name":"all","containerEdits":{"netDevices":[{"hostInterfaceName":"a","name":"b"}],"intelRdt":{"closID":"a"}}}],"annotations":{"a":"b"}}`))
	f.Add([]byte("cdiVersion: 0.6.0\nkind: v.com/g\ndevices:\n- name: a\n  containerEdits: {deviceNodes: [null], mounts: [null], hooks: [null]}\n"))
	f.Add([]byte("cdiVersion: 0.6.0\nkind: v.com/g\ndevices: &a\n- *a\n"))
	const good = `{"cdiVersion":"0.6.0","kind":"good.org/dev","devices":[{"name":"0","containerEdits":{"env":["GOOD=1"]}}]}`
	f.Fuzz(func(t *testing.T, text []byte) {
		dir := t.TempDir()
		for name, data := range map[string][]byte{"a.yaml": text, "b.json": []byte(good)} {
			if err := os.WriteFile(filepath.Join(dir, name), data, 0o644); err != nil {
				t.Fatal(err)
			}
		}
		c, problems := Load([]string{dir}, trust.Owner(os.Geteuid()))
		for _, p := range problems {
			if strings.ContainsAny(p.Err, "\n\r") || p.Err == "" || filepath.Dir(p.Path) != dir {
				t.Errorf("%+v", p)
			}
		}
		if c.SpecOf("good.org/dev=0") != filepath.Join(dir, "b.json") && !bytes.Contains(text, []byte("good.org")) {
			t.Errorf("the good one is gone: %+v", problems)
		}
		choose(t, c)
	})
}

func choose(t *testing.T, c *devices.Catalogue) {
	t.Helper()
	data, err := json.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	there, err := devices.Read(bytes.NewReader(data))
	if err != nil || len(there.Names()) != len(c.Names()) {
		t.Fatalf("%v became %v, %v", c.Names(), there.Names(), err)
	}
	for _, name := range there.Names() {
		wish := devices.Wish{Asked: []string{name}}
		choice, err := wish.Choose(there, nil)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		edits := there.Edits(choice)
		edits.TakeWork()
		for _, n := range edits.Nodes {
			if !filepath.IsAbs(n.Path) || filepath.Clean(n.Path) != n.Path {
				t.Errorf("%s: device file %q", name, n.Path)
			}
		}
	}
}
