package prolog

import (
	"strings"
	"testing"
	"time"

	"github.com/berth-hpc/berth/launcher/wire"
)

func TestParseRequest(t *testing.T) {
	good := map[string]string{"job": "4294967295", "uid": "1000", "gid": "1000", "image": "a/b:c", "digest": someDigest}
	encode := func(change map[string]string) wire.Message {
		var m wire.Message
		for k, v := range good {
			if c, ok := change[k]; ok {
				v = c
			}
			m = m.Add(k, v)
		}
		return m
	}
	if r, err := parseRequest(encode(nil)); err != nil || r.Job != "4294967295" || r.UID != 1000 || r.Digest != someDigest {
		t.Errorf("%+v, %v", r, err)
	}
	if _, err := parseRequest(encode(map[string]string{"digest": ""})); err != nil {
		t.Errorf("without a digest: %v", err)
	}
	for key, values := range map[string][]string{
		"job":    {"", "-1", "4294967296", "1/../2", "0x1", "1 ", "2_1", "1.s/.."},
		"uid":    {"", "root"},
		"gid":    {"99999999999"},
		"image":  {"", "a\nb", "a\x1bb", "a\x7f", "a\u0085b", "\xff", strings.Repeat("a", 2000)},
		"digest": {"sha256:", "sha512:" + someDigest[7:], strings.ToUpper(someDigest), someDigest + "/..", "latest"},
	} {
		for _, v := range values {
			if _, err := parseRequest(encode(map[string]string{key: v})); err == nil {
				t.Errorf("accepted %s=%q", key, v)
			}
		}
	}
	if _, err := parseRequest(encode(nil).Add("uid", "0")); err == nil {
		t.Error("accepted two uids")
	}
}

func TestReadMessageIsBounded(t *testing.T) {
	if _, err := readMessage(strings.NewReader(strings.Repeat("image=x\x00", wire.MaxMessage))); err == nil {
		t.Error("accepted more than a message may hold")
	}
}

func TestWait(t *testing.T) {
	for value, want := range map[string]time.Duration{"": 2 * time.Second, "0": 0, "500": 500 * time.Millisecond, "99999": 2 * time.Second, "x": 2 * time.Second} {
		if got := wait(wire.Message{{Key: "wait", Value: value}}, 2*time.Second); got != want {
			t.Errorf("wait=%q: %s, want %s", value, got, want)
		}
	}
}
