package config

import (
	"strings"
	"testing"
)

func TestShares(t *testing.T) {
	for text, want := range map[string]Share{
		"0": {}, "0%": {}, "200GB": {Size: 200e9}, "1.5 TiB": {Size: 3 << 39}, "90%": {Percent: 90},
		" 2.5 % ": {Percent: 2.5}, "100%": {Percent: 100},
	} {
		got, err := ParseShare(text)
		if err != nil || got != want {
			t.Errorf("%q: %+v, %v", text, got, err)
		}
		if again, err := ParseShare(got.String()); err != nil || again != got {
			t.Errorf("%q: written %s, read as %+v, %v", text, got, again, err)
		}
	}
	for _, text := range []string{"", "%", "x%", "-5%", "+5%", "101%", "1e1%", "NaN%", "5%%", "GB", "-1"} {
		if got, err := ParseShare(text); err == nil {
			t.Errorf("%q is %+v", text, got)
		}
	}
	if got := (Share{Percent: 5}).Of(1000); got != 50 {
		t.Errorf("5%% of 1000 is %d", got)
	}
	if got := (Share{Size: 7}).Of(1000); got != 7 {
		t.Errorf("7 bytes are %d", got)
	}
}

func TestSpaceInFilesAndVariables(t *testing.T) {
	dir := write(t, map[string]string{"berth.toml": "store.quota = '200GiB'\nstore.min_free = 1048576\n"})
	c, err := Load(Source{Dir: dir, Env: environment(map[string]string{"BERTH_STORE_USER_LOW_WATER": "75%"})})
	if err != nil {
		t.Fatal(err)
	}
	if want := (Space{Quota: Share{Size: 200 << 30}, LowWater: Share{Percent: 90}, MinFree: Share{Size: 1 << 20}}); c.Store.Space != want {
		t.Errorf("%+v, want %+v", c.Store.Space, want)
	}
	if want := (Space{LowWater: Share{Percent: 75}}); c.Store.UserSpace != want {
		t.Errorf("%+v, want %+v", c.Store.UserSpace, want)
	}
	for _, line := range []string{"store.quota = 'much'", "store.quota = 1.5", "store.quota = -1", "store.low_water = true", "store.max_image = '5%'"} {
		_, err := Load(Source{Dir: write(t, map[string]string{"berth.toml": line})})
		if err == nil || !strings.Contains(err.Error(), "want a size") {
			t.Errorf("%s: %v", line, err)
		}
	}
}
