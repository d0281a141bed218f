package launcher

import (
	"errors"
	"io"
	"os"
	"strings"
	"testing"
	"time"
)

func TestPacketsKeepTheirFiles(t *testing.T) {
	a, b := pair(t)
	null, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	if err := SendPacket(a, []byte("hello"), null, null); err != nil {
		t.Fatal(err)
	}
	p, err := ReceivePacket(b, 100)
	if err != nil {
		t.Fatal(err)
	}
	defer closeAll(p.Files)
	if string(p.Data) != "hello" || len(p.Files) != 2 || p.Sender != nil {
		t.Errorf("%+v", p)
	}
}

// The other side is less trusted: it bounds neither memory nor descriptors.
func TestPacketsAreBounded(t *testing.T) {
	a, b := pair(t)
	if err := SendPacket(a, []byte(strings.Repeat("x", 101))); err != nil {
		t.Fatal(err)
	}
	if _, err := ReceivePacket(b, 100); err == nil {
		t.Error("took a packet that is too large")
	}
	before := descriptors(t)
	many := make([]*os.File, 20)
	for i := range many {
		many[i] = a
	}
	if err := SendPacket(a, []byte("x"), many...); err != nil {
		t.Fatal(err)
	}
	if _, err := ReceivePacket(b, 100); err == nil {
		t.Error("took 20 descriptors")
	}
	if after := descriptors(t); after != before {
		t.Errorf("%d descriptors became %d", before, after)
	}
}

func TestPacketsEnd(t *testing.T) {
	a, b := pair(t)
	a.Close()
	if _, err := ReceivePacket(b, 100); !errors.Is(err, io.EOF) {
		t.Error(err)
	}
	if err := SendPacket(b, []byte("x")); err == nil { // and no SIGPIPE
		t.Error("sent to nobody")
	}
}

// A builder that dies, or says what no builder says, is an error and not a hang.
func TestBrokenBuilders(t *testing.T) {
	for name, script := range map[string]string{
		"dies":         "exit 3",
		"dies at once": "kill -9 $$",
		"says nothing": "sleep 0.1",
	} {
		exe := t.TempDir() + "/builder"
		if err := os.WriteFile(exe, []byte("#!/bin/sh\necho broken >&2\n"+script+"\n"), 0o755); err != nil {
			t.Fatal(err)
		}
		null, err := os.Open(os.DevNull)
		if err != nil {
			t.Fatal(err)
		}
		defer null.Close()
		c := &Creation{Exe: exe, Users: &UserNamespaces{Outer: null}, Request: &Request{}}
		began := time.Now()
		if _, err := c.Create(t.Context()); err == nil {
			t.Errorf("%s: no error", name)
		} else if !strings.Contains(err.Error(), "create container") {
			t.Errorf("%s: %v", name, err)
		}
		if took := time.Since(began); took > 20*time.Second {
			t.Errorf("%s: took %v", name, took)
		}
	}
}

func pair(t *testing.T) (a, b *os.File) {
	t.Helper()
	a, b, err := socketpair()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { a.Close(); b.Close() })
	return a, b
}

func descriptors(t *testing.T) int {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(entries)
}
