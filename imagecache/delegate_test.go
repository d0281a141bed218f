package imagecache

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"io"
	"maps"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"golang.org/x/sys/unix"

	"github.com/berth-hpc/berth/fault"
	"github.com/berth-hpc/berth/imagecache/store"
)

// serving starts Serve over a stream and returns the other end, and what Serve
// returned once that is closed.
func serving(t *testing.T, c Converter, dir string) (conn net.Conn, end func() error) {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	ours, theirs := connOf(t, fds[0]), connOf(t, fds[1])
	served := make(chan error, 1)
	go func() {
		err := Serve(testContext(t), theirs, c, dir)
		theirs.Close()
		served <- err
	}()
	return ours, func() error { ours.Close(); return <-served }
}

func connOf(t *testing.T, fd int) net.Conn {
	t.Helper()
	f := os.NewFile(uintptr(fd), "stream")
	defer f.Close()
	c, err := net.FileConn(f)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// fetchDelegated fetches ref with the conversion at the other end of a stream.
func fetchDelegated(t *testing.T, ref Reference, c Converter, net Network) (dir, converted string, err error) {
	t.Helper()
	dir, converted = t.TempDir(), t.TempDir()
	conn, end := serving(t, c, converted)
	d, err := Resolve(testContext(t), ref, Platform{}, net)
	if err != nil {
		t.Fatal(err)
	}
	err = Fetch(testContext(t), ref, d, dir, FetchOptions{Network: net, Converter: c, Delegate: conn})
	if served := end(); served != nil {
		t.Errorf("Serve: %v", served)
	}
	return dir, converted, err
}

func TestDelegate(t *testing.T) {
	r := newTestRegistry(t)
	lower := tarOf(t, dir("d", 0o755), file("d/a", 0o644, strings.Repeat("a", 3<<20)), file("d/b", 0o644, "b"))
	ref := r.push(t, "x:1", imageOf(t, lower, tarOf(t, whiteout("d/.wh.b"), file("c", 0o600, "c")), tarOf(t)))
	want, err := Pull(testContext(t), openStore(t), ref, FetchOptions{})
	if err != nil {
		t.Fatal(err)
	}
	wantRecord, _ := want.Record()
	for _, c := range []Converter{Stream{}, Umoci{}} {
		t.Run(c.Name(), func(t *testing.T) {
			dir, converted, err := fetchDelegated(t, ref, c, Network{})
			if err != nil {
				t.Fatal(err)
			}
			if got, want := names(t, converted), []string{store.RootfsName}; len(got) != 1 || got[0] != want[0] {
				t.Errorf("the converter left %q", got)
			}
			if got := names(t, dir); len(got) != 2 {
				t.Errorf("the fetcher left %q", got)
			}
			got := readTree(t, filepath.Join(converted, store.RootfsName))
			if want := readTree(t, want.Rootfs()); !maps.Equal(got, want) {
				t.Errorf("got %v, want %v", got, want)
			}
			checkDelegatedRecord(t, dir, converted, c, wantRecord)
		})
	}
}

func checkDelegatedRecord(t *testing.T, dir, converted string, c Converter, want store.Record) {
	t.Helper()
	var got store.Record
	raw, err := os.ReadFile(filepath.Join(dir, store.RecordName))
	if err == nil {
		err = json.Unmarshal(raw, &got)
	}
	size, sum, err2 := measure(t.Context(), filepath.Join(converted, store.RootfsName))
	if err := errors.Join(err, err2); err != nil {
		t.Fatal(err)
	}
	if got.Squashed != size || got.SHA256 != sum || got.Compressed != want.Compressed || got.Uncompressed != want.Uncompressed ||
		got.Layers != want.Layers || got.Digest != want.Digest || got.Converter != c.Name() || got.Seconds["squash"] <= 0 {
		t.Errorf("record %+v, want one as %+v", got, want)
	}
	if c.Name() == want.Converter && got.SHA256 != want.SHA256 {
		t.Error("other bytes than without a delegate")
	}
}

func names(t *testing.T, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var all []string
	for _, e := range entries {
		all = append(all, e.Name())
	}
	return all
}

// TestDelegateFailures: each failure is blamed as without a second process, and
// neither side keeps anything of the image.
func TestDelegateFailures(t *testing.T) {
	raw := tarOf(t, file("f", 0o644, strings.Repeat("x", 4<<20)))
	good := layerOf(raw, raw, "application/vnd.oci.image.layer.v1.tar")
	d, _ := good.Digest()
	noTar := bytes.Repeat([]byte("no tar "), 1<<18)
	for _, test := range []struct {
		name  string
		img   v1.Image
		serve func(http.ResponseWriter, *http.Request) bool
		c     Converter
		blame fault.Blame
		cause string
	}{
		{
			name: "not a tar", img: imageOfLayers(t, layerOf(noTar, noTar, "application/vnd.oci.image.layer.v1.tar"), good),
			c: Stream{}, blame: fault.User, cause: "damaged",
		},
		{
			name: "other diffID", img: imageOfLayers(t, layerOf(raw, noTar, "application/vnd.oci.image.layer.v1.tar")),
			c: Stream{}, blame: fault.User, cause: "where the config names",
		},
		{
			name: "a limit", img: imageOfLayers(t, good), c: Stream{Limits: Limits{Bytes: 1 << 20}},
			blame: fault.User, cause: "bytes",
		},
		{
			name: "other bytes", img: imageOfLayers(t, good), serve: serveBlob(t, good, noTar),
			c: Stream{}, blame: fault.Site, cause: "layer 1",
		},
		{
			name: "gone", img: imageOfLayers(t, good), c: Stream{}, blame: fault.User, cause: "404",
			serve: func(w http.ResponseWriter, req *http.Request) bool {
				if !strings.HasSuffix(req.URL.Path, d.String()) {
					return false
				}
				w.WriteHeader(http.StatusNotFound)
				return true
			},
		},
		{
			name: "no such program", img: imageOfLayers(t, good), c: Umoci{Mksquashfs: "/no/such"},
			blame: fault.Site, cause: "/no/such",
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			r := newTestRegistry(t)
			ref := r.push(t, "x:1", test.img)
			if test.serve != nil {
				r.onRequest(test.serve)
			}
			_, converted, err := fetchDelegated(t, ref, test.c, Network{})
			if err == nil || fault.Of(err) != test.blame || !strings.Contains(err.Error(), test.cause) || fault.Remedy(err) == "" {
				t.Errorf("got %v, blame %v, remedy %q", err, fault.Of(err), fault.Remedy(err))
			}
			if left := names(t, converted); len(left) > 0 {
				t.Errorf("the converter left %q", left)
			}
		})
	}
}

// TestDelegateStartsOver: a mirror's wrong bytes are noticed at the layer's
// end. What was converted is thrown away, and the registry asked.
func TestDelegateStartsOver(t *testing.T) {
	raw := tarOf(t, file("f", 0o644, strings.Repeat("x", 1<<20)))
	l := layerOf(raw, raw, "application/vnd.oci.image.layer.v1.tar")
	img := imageOfLayers(t, l)
	mirror, origin := newTestRegistry(t), newTestRegistry(t)
	mirror.push(t, "x:1", img)
	ref := origin.push(t, "x:1", img)
	other := bytes.Clone(raw)
	other[700] ^= 1
	mirror.onRequest(serveBlob(t, l, other))
	_, converted, err := fetchDelegated(t, ref, Stream{}, Network{Hosts: map[string]Host{origin.host: {Mirrors: []string{mirror.host}}}})
	if err != nil {
		t.Fatal(err)
	}
	if got := readTree(t, filepath.Join(converted, store.RootfsName))["f"]; got != "file 0644 "+strings.Repeat("x", 1<<20) {
		t.Errorf("got %.40q", got)
	}
}

// TestDelegateBreaksOff has converters that end, hang or lie.
func TestDelegateBreaksOff(t *testing.T) {
	raw := tarOf(t, file("f", 0o644, strings.Repeat("x", 8<<20)))
	r := newTestRegistry(t)
	ref := r.push(t, "x:1", imageOf(t, raw, tarOf(t, file("g", 0o644, "g"))))
	digest, err := Resolve(testContext(t), ref, Platform{}, Network{})
	if err != nil {
		t.Fatal(err)
	}
	for name, behave := range map[string]func(net.Conn){
		"ends at once":       func(c net.Conn) { c.Close() },
		"ends in the middle": func(c net.Conn) { _, _ = io.CopyN(io.Discard, c, 1<<20); c.Close() },
		"endless line":       func(c net.Conn) { go io.Copy(io.Discard, c); _, _ = io.Copy(c, zeros{}) },
		"garbage":            func(c net.Conn) { go io.Copy(io.Discard, c); _, _ = c.Write([]byte("{]\n")) },
		"nothing made":       func(c net.Conn) { go io.Copy(io.Discard, c); _, _ = c.Write([]byte("{}\n")) },
	} {
		t.Run(name, func(t *testing.T) {
			fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
			if err != nil {
				t.Fatal(err)
			}
			ours, theirs := connOf(t, fds[0]), connOf(t, fds[1])
			go behave(theirs)
			err = Fetch(testContext(t), ref, digest, t.TempDir(), FetchOptions{Delegate: ours})
			if !errors.Is(err, errConverter) {
				t.Errorf("got %v", err)
			}
		})
	}
}

func TestDelegateIsCancelled(t *testing.T) {
	raw := tarOf(t, file("f", 0o644, "x"))
	l := layerOf(raw, raw, "application/vnd.oci.image.layer.v1.tar")
	d, _ := l.Digest()
	r := newTestRegistry(t)
	ref := r.push(t, "x:1", imageOfLayers(t, l))
	digest, err := Resolve(testContext(t), ref, Platform{}, Network{})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancelCause(testContext(t))
	stop := errors.New("stop")
	r.onRequest(func(_ http.ResponseWriter, req *http.Request) bool {
		if !strings.HasSuffix(req.URL.Path, d.String()) {
			return false
		}
		cancel(stop)
		<-req.Context().Done()
		return true
	})
	conn, end := serving(t, Stream{}, t.TempDir())
	if err := Fetch(ctx, ref, digest, t.TempDir(), FetchOptions{Delegate: conn}); !errors.Is(err, stop) {
		t.Errorf("got %v", err)
	}
	if err := end(); err != nil {
		t.Errorf("Serve: %v", err)
	}
}

// FuzzServe gives the converter whatever a sender may send.
func FuzzServe(f *testing.F) {
	frame := func(data string) string {
		return string(binary.BigEndian.AppendUint32(nil, uint32(len(data)))) + data
	}
	const order1 = `{"diff_ids":["sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"]}`
	end, up := "\x00\x00\x00\x00", "\xff\xff\xff\xff"
	for _, seed := range []string{
		"", end, up, frame(order1), frame(order1) + end, frame(order1) + frame("x") + end, frame(order1) + frame("x") + up + frame(order1) + end,
		frame(`{"diff_ids":[]}`), frame("{}"), frame("x"), "\x00\x20\x00\x00", frame(order1) + "\x00\x00\x01\x00x",
		frame(order1) + frame("\x1f\x8b\x08") + end, frame(order1) + frame("\x28\xb5\x2f\xfd") + end,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, sent []byte) {
		dir := t.TempDir()
		var answers bytes.Buffer
		err := Serve(t.Context(), struct {
			io.Reader
			io.Writer
		}{bytes.NewReader(sent), &answers}, Stream{Workers: 1, Limits: Limits{Entries: 1000, Bytes: 1 << 20}}, dir)
		made := strings.HasSuffix(strings.TrimSpace(answers.String()), "}}") && strings.Contains(lastLine(answers.String()), `"made"`)
		if left := names(t, dir); err == nil && len(left) > 0 && !made {
			t.Errorf("left %q after %s", left, answers.String())
		}
	})
}

func lastLine(s string) string {
	s = strings.TrimSpace(s)
	return s[strings.LastIndexByte(s, '\n')+1:]
}

// TestDelegateDiskFull: that the disk is full is known on the other side, where
// room may be made.
func TestDelegateDiskFull(t *testing.T) {
	r := newTestRegistry(t)
	ref := r.push(t, "x:1", imageOf(t, tarOf(t, file("f", 0o644, strings.Repeat("x", 1<<20)))))
	for _, errno := range []unix.Errno{unix.ENOSPC, unix.EIO} {
		_, _, err := fetchDelegated(t, ref, failingDisk{errno}, Network{})
		if !errors.Is(err, errno) || !IsDisk(err) || fault.Of(err) != fault.Site || fault.Remedy(err) == "" {
			t.Errorf("%v: got %v, blame %v, remedy %q", errno, err, fault.Of(err), fault.Remedy(err))
		}
	}
}

// failingDisk is a Converter whose disk says errno.
type failingDisk struct{ errno unix.Errno }

func (failingDisk) Name() string  { return "failing" }
func (failingDisk) Streams() bool { return true }

func (f failingDisk) Convert(context.Context, LayerSource, string, string, ProgressFunc) error {
	return &os.PathError{Op: "write", Path: "rootfs.sqfs", Err: f.errno}
}
