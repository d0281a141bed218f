package e2e

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/berth-hpc/berth/testdata/probe"
)

// install puts an executable file where all machines and tests' containers see it.
func (s *site) install(t *testing.T, name, text string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(s.Dir, "shared", name), []byte(text), 0o755); err != nil {
		t.Fatal(err)
	}
}

// installProbe makes /shared/probe.
func (s *site) installProbe(t *testing.T) {
	t.Helper()
	program, err := os.ReadFile(probe.Build(t))
	if err != nil {
		t.Fatal(err)
	}
	s.install(t, "probe", string(program))
}
