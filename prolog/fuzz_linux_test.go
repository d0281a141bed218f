package prolog

import (
	"bytes"
	"context"
	"io"
	"strings"
	"testing"

	"github.com/berth-hpc/berth/fault"
	"github.com/berth-hpc/berth/imagecache"
)

// FuzzFetcherWords is root's side of the conversation with a fetcher that was
// taken over: whatever it says, root neither panics nor prints control
// characters, nor holds more than it should.
func FuzzFetcherWords(f *testing.F) {
	f.Add([]byte(`{"progress":{"phase":"pull","layer":1,"layers":2,"done":5,"total":10}}` + "\n" + `{"done":true}` + "\n"))
	f.Add([]byte(`{"progress":{"phase":"squash\u001b[2J","layer":-1,"layers":999999999,"done":-5,"total":-1}}` + "\n"))
	f.Add([]byte(`{"need":5}` + "\n" + `{"need":-5}` + "\n" + `{"done":true}`))
	f.Add([]byte(`{"need":9223372036854775807}`))
	f.Add([]byte(`{"failure":{"text":"a\nb\u001b[31m","remedy":"\u0000","blame":"nobody"},"disk":true,"full":true}`))
	f.Add([]byte(`{"digest":"sha256:../../etc"}`))
	f.Add([]byte(`{}` + "\n"))
	f.Fuzz(func(t *testing.T, said []byte) {
		var meter imagecache.Meter
		reserved := 0
		fetcher := &fetcher{
			say: func(p imagecache.Progress) {
				meter.Update(p)
				oneLineOnly(t, progressLine("x", meter.Status()))
			},
			reserve: func(_ context.Context, bytes int64) error {
				if reserved++; bytes < 0 || reserved > 1 {
					t.Errorf("reservation %d of %d bytes", reserved, bytes)
				}
				return nil
			},
		}
		last, err := fetcher.converse(t.Context(), FetchRequest{Image: "x"}, bytes.NewReader(said), io.Discard)
		if err != nil || last == nil {
			return
		}
		if err := fetcher.result(last); err != nil {
			oneLineOnly(t, err.Error())
			oneLineOnly(t, fault.Remedy(err))
		}
		if d := fetcher.digest; !d.IsZero() && len(d.String()) != len("sha256:")+64 {
			t.Errorf("digest %q", d)
		}
	})
}

func oneLineOnly(t *testing.T, text string) {
	t.Helper()
	if len(text) > 8<<10 || strings.ContainsFunc(text, func(r rune) bool { return r < ' ' || r == 0x7f }) {
		t.Errorf("%q is not one line of text", text)
	}
}
