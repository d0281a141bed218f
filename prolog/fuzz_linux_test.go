package prolog

import (
	"bytes"
	"context"
	"io"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/berth-hpc/berth/fault"
	"github.com/berth-hpc/berth/imagecache"
	"github.com/berth-hpc/berth/imagecache/store"
	"github.com/berth-hpc/berth/prolog/jobstate"
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

// FuzzRequest: what a hook, and through it a user, asks root for is one printable
// line, for a job and a user that are named once.
func FuzzRequest(f *testing.F) {
	for _, text := range []string{
		"job=1|uid=2|gid=3|image=debian|wait=100|account=a|partition=p", "job=12[3].pbs|uid=2|gid=3|image=a|digest=sha256:0",
		"job=1|job=2|uid=2|gid=3|image=a", "job=1|uid=-2|gid=3|image=a\x1b", "job=../x|uid=2|gid=3|image=a|wait=4294967295",
	} {
		f.Add([]byte(strings.ReplaceAll(text, "|", "\x00") + "\x00"))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		m, err := readMessage(bytes.NewReader(data))
		if err != nil {
			return
		}
		if w := wait(m, 2*time.Second); w < 0 || w > 2*time.Second {
			t.Errorf("a wait of %v", w)
		}
		r, err := parseRequest(m)
		if err != nil {
			return
		}
		oneLineOnly(t, r.Image)
		if len(m.All("job")) != 1 || len(m.All("uid")) != 1 || len(m.All("gid")) != 1 || !filepath.IsLocal(string(r.Job)) || filepath.Base(string(r.Job)) != string(r.Job) {
			t.Errorf("%+v of %q", r, data)
		}
		if _, err := store.ParseDigest(r.Digest); r.Digest != "" && err != nil {
			t.Errorf("the digest %q", r.Digest)
		}
	})
}

// FuzzScheduler: what commands of the scheduler's print is jobs by their ids, or
// worth nothing; users write some of it.
func FuzzScheduler(f *testing.F) {
	f.Add("4711\n 12\n\n", "4711|main|bio\n")
	f.Add("4711_1\n", "4711|main|a\n4711|main|b\n")
	f.Add("007\n+1", "4711||\n4711|p|(null)")
	f.Fuzz(func(t *testing.T, live, facts string) {
		if jobs, err := parseJobs(live); err == nil {
			for id := range jobs {
				if again, err := jobstate.ParseJobID(string(id)); err != nil || again != id || id.IsPBS() {
					t.Errorf("the job %q, %v", id, err)
				}
			}
			if len(jobs) > strings.Count(live, "\n")+1 {
				t.Errorf("%d jobs of %q", len(jobs), live)
			}
		}
		job, err := parseJobFacts(facts, "4711")
		if err != nil {
			return
		}
		if job.Partition == "" || strings.ContainsAny(job.Partition, "\n|") || strings.Contains(job.Account, "\n") || strings.Count("\n"+facts, "\n4711|") != 1 {
			t.Errorf("%+v of %q", job, facts)
		}
	})
}
