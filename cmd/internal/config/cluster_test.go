package config

import "testing"

func TestWriters(t *testing.T) {
	for _, tc := range []struct {
		name, host string
		writers    []string
		want       bool
	}{
		{"default", "n1.example.org", defaultCluster().Writers, true},
		{"nobody", "n1", []string{}, false},
		{"first part", "n1.example.org", []string{"n[12]"}, true},
		{"full name", "n1.example.org", []string{"*.example.org"}, true},
		{"another", "n3.example.org", []string{"n[12]", "login*"}, false},
		{"the first part alone is not the full name", "n1", []string{"*.example.org"}, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if got := (Cluster{Writers: tc.writers}).Writes(tc.host); got != tc.want {
				t.Errorf("got %v", got)
			}
		})
	}
}

func TestClusterSettings(t *testing.T) {
	for name, text := range map[string]string{
		"relative": "cluster.dir = 'x'", "pattern": "cluster.writers = ['n[']", "empty pattern": "cluster.writers = ['']",
		"use": "cluster.use = 'link'", "lease": "cluster.lease = '0s'", "delay": "cluster.remove_delay = '-1s'", "lock timeout": "cluster.lock_timeout = '0s'", "timeout": "cluster.timeout = '0s'",
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := Load(Source{Dir: write(t, map[string]string{"berth.toml": text})}); err == nil {
				t.Errorf("%s was taken", text)
			}
		})
	}
	c, err := Load(Source{Dir: write(t, map[string]string{"berth.toml": "[cluster]\ndir = ''\nwriters = []\nuse = 'mount'\n"})})
	if err != nil || c.Cluster.Dir != "" || c.Cluster.Use != Mount || c.Cluster.Writes("x") {
		t.Errorf("%+v, %v", c, err)
	}
}
