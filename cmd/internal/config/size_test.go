package config

import (
	"fmt"
	"strings"
	"testing"
)

func TestSizes(t *testing.T) {
	for text, want := range map[string]Size{
		"0": 0, "17": 17, "17B": 17, "1kB": 1000, "1K": 1000, "1KiB": 1024, "1.5 GB": 1_500_000_000, "2TiB": 2 << 40, "4M": 4e6, "1PB": 1e15,
	} {
		got, err := ParseSize(text)
		if err != nil || got != want {
			t.Errorf("%q: %d, %v", text, got, err)
		}
		again, err := ParseSize(got.String())
		if err != nil || again != got {
			t.Errorf("%q: written %s, read as %d, %v", text, got, again, err)
		}
	}
	for _, text := range []string{"", "x", "-1", "1 X", "1e3", "9000000PB", "1GB/s", "GB", "1,5GB"} {
		if got, err := ParseSize(text); err == nil {
			t.Errorf("%q is %d", text, got)
		}
	}
}

func TestNumbersAndSizesInFiles(t *testing.T) {
	for line, want := range map[string]string{
		"limits.entries = 7":             "",
		"limits.entries = 0":             "limits.entries: 0 is not between 1 and 1073741824",
		"limits.entries = 'many'":        "limits.entries: want a whole number",
		"limits.entries = 1.5":           "limits.entries: want a whole number",
		"limits.bytes = '2TB'":           "",
		"limits.bytes = 1048576":         "",
		"limits.bytes = -1":              "limits.bytes: want a size",
		"limits.bytes = 'much'":          "limits.bytes: want a size",
		"limits.bytes = '0B'":            "limits.bytes: it is zero",
		"network.min_rate = '0B'":        "",
		"network.no_proxy = ['http://']": `network.no_proxy: "http://" is no name`,
	} {
		_, err := Load(Source{Dir: write(t, map[string]string{"berth.toml": line})})
		if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", line, err)
		}
	}
	c, err := Load(Source{Dir: t.TempDir(), Env: environment(map[string]string{"BERTH_NETWORK_RETRIES": "9", "BERTH_LIMITS_BYTES": "5GB"})})
	if err != nil || c.Network.Retries != 9 || c.Limits.Bytes != 5e9 {
		t.Errorf("%+v %+v, %v", c.Network, c.Limits, err)
	}
}

// A proxy's password is in no message, and not in what show prints.
func TestProxyPasswordsStayHidden(t *testing.T) {
	for value, ok := range map[string]bool{
		"http://u:geheim@proxy:3128": true, "https://proxy": true, "socks5://proxy:1080": true, "direct": true, "": true,
		"ftp://u:geheim@proxy": false, "http://u:geheim@proxy/path": false, "http://u:geheim@pro xy": false,
		"u:geheim@proxy:3128": false, "proxy:3128": false, "http://u:gehe%im@proxy": false, "http://": false,
	} {
		for _, key := range []string{"network.proxy", "registry.'quay.io'.proxy"} {
			c, err := Load(Source{Dir: write(t, map[string]string{"berth.toml": fmt.Sprintf("%s = %q", key, value)})})
			if (err == nil) != ok {
				t.Errorf("%s = %s: %v", key, value, err)
			}
			if err != nil {
				if strings.Contains(err.Error(), "gehe") {
					t.Errorf("a password is in: %v", err)
				}
				continue
			}
			for _, v := range c.Values() {
				if strings.Contains(fmt.Sprint(v.Value, v), "geheim") {
					t.Errorf("a password is shown: %s = %v, %v", v.Key, v, v.Value)
				}
			}
		}
	}
}
