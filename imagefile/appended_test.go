package imagefile

import (
	"bytes"
	"reflect"
	"strings"
	"testing"
)

func TestAppendedConfig(t *testing.T) {
	want := Config{Env: []string{"A=b c"}, WorkingDir: "/w", Entrypoint: []string{"e"}, Cmd: []string{"c", ""}, Labels: map[string]string{"l": "v"}}
	b := bytes.NewBufferString("hsqs…")
	if err := AppendConfig(b, want); err != nil {
		t.Fatal(err)
	}
	whole := b.Bytes()
	if got, ok := AppendedConfig(bytes.NewReader(whole), int64(len(whole))); !ok || !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, %v", got, ok)
	}
	for name, text := range map[string]string{
		"empty": "", "short": "x", "cut": string(whole[:len(whole)-1]), "only the mark": appendedMark,
		"too long": "{}\xff\xff\xff\xff\xff\xff\xff\x7f" + appendedMark, "longer than the file": "{}\x10\x00\x00\x00\x00\x00\x00\x00" + appendedMark,
		"not JSON": "{]\x02\x00\x00\x00\x00\x00\x00\x00" + appendedMark,
	} {
		if got, ok := AppendedConfig(strings.NewReader(text), int64(len(text))); ok || !reflect.DeepEqual(got, Config{}) {
			t.Errorf("%s: %+v", name, got)
		}
	}
	if err := AppendConfig(b, Config{WorkingDir: strings.Repeat("x", maxAppended)}); err == nil {
		t.Error("a config of any size is written")
	}
}

// FuzzAppendedConfig: what is read is written so that it is read as the same.
func FuzzAppendedConfig(f *testing.F) {
	var b bytes.Buffer
	if err := AppendConfig(&b, Config{Env: []string{"A=b"}}); err != nil {
		f.Fatal(err)
	}
	f.Add(b.Bytes())
	f.Add([]byte(appendedMark))
	f.Fuzz(func(t *testing.T, data []byte) {
		c, ok := AppendedConfig(bytes.NewReader(data), int64(len(data)))
		if !ok {
			return
		}
		var b bytes.Buffer
		if err := AppendConfig(&b, c); err != nil {
			return // it says more than may be written
		}
		if again, ok := AppendedConfig(bytes.NewReader(b.Bytes()), int64(b.Len())); !ok || !reflect.DeepEqual(again, c) {
			t.Errorf("%+v, again %+v, %v", c, again, ok)
		}
	})
}
