package records

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"testing"
)

// FuzzFile: whatever a file of records holds after a crash, the whole lines in
// it are read, and nothing keeps them from that.
func FuzzFile(f *testing.F) {
	f.Add([]byte("{\"job\":\"1\"}\n{\"job\":\"1\",\n\x00\x00\n"))
	f.Add(bytes.Repeat([]byte{0}, 3*maxLine))
	f.Add([]byte("null\n[]\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		if len(data) > maxFile {
			return
		}
		name := filepath.Join(t.TempDir(), "r")
		good, err := json.Marshal(Record{Job: "4711"})
		if err != nil {
			t.Fatal(err)
		}
		text := append(append(append([]byte{}, data...), '\n'), good...)
		if err := os.WriteFile(name, text, 0o600); err != nil {
			t.Fatal(err)
		}
		all, err := readFile(name)
		if err != nil || len(all) == 0 || all[len(all)-1].Job != "4711" {
			t.Errorf("%d records, %v", len(all), err)
		}
	})
}
