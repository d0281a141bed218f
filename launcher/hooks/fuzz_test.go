package hooks_test

import (
	"path/filepath"
	"testing"

	"github.com/berth-hpc/berth/launcher/hooks"
)

// FuzzParse: a hook that is taken has a program, a stage, a bounded time, and
// conditions that can be decided.
func FuzzParse(f *testing.F) {
	f.Add([]byte(good))
	f.Add([]byte(`{"version":"1.0.0","hook":{"path":"/a","args":["a"]},"when":{"annotations":{"^a$":".*"},"commands":["b+"],"hasBindMounts":false},"stages":["poststop","prestart"]}`))
	f.Add([]byte(`{"version":"1.0.0","hook":{"path":"/a","timeout":9223372036854775807},"when":{},"stages":["prestart"]}`))
	facts := &hooks.Facts{Command: "/bin/b", Annotations: map[string]string{"a": "b"}, BindMounts: true}
	f.Fuzz(func(t *testing.T, text []byte) {
		h, err := hooks.Parse(text)
		if err != nil {
			return
		}
		if !filepath.IsAbs(h.Path) || len(h.Stages) == 0 || h.Timeout < 0 || h.Timeout > hooks.MaxTimeout {
			t.Errorf("%+v", h)
		}
		w := h.When
		if h.Wants(facts) && w.Always == nil && w.HasBindMounts == nil && len(w.Commands) == 0 && len(w.Annotations) == 0 {
			t.Error("it runs without a condition")
		}
	})
}
