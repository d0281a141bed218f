package main

import (
	"slices"
	"strings"
	"testing"

	"github.com/berth-hpc/berth/launcher/wire"
)

var jobRequest = wire.Message{
	{Key: "job", Value: "7[1].server"},
	{Key: "uid", Value: "1000"},
	{Key: "gid", Value: "100"},
	{Key: "groups", Value: "100,3000"},
	{Key: "image", Value: "a/b:1"},
	{Key: "env", Value: "A,B"},
	{Key: "env", Value: "C"},
	{Key: "visible", Value: "/opt/pbs"},
	{Key: "queue", Value: "workq"},
	{Key: "nodes", Value: "2"},
}

func TestParseJob(t *testing.T) {
	j, err := parseJob(jobRequest)
	if err != nil {
		t.Fatal(err)
	}
	if j.id != "7[1].server" || j.mode != "job" || j.queue != "workq" || j.request.ID != "7[1].server" || j.request.User.UID != 1000 ||
		j.request.Nodes != 2 || !slices.Equal(j.request.Env, []string{"A", "B", "C"}) || !slices.Equal(j.paths.Visible, []string{"/opt/pbs"}) {
		t.Errorf("%+v %+v", j, j.request)
	}
}

// What names root, or more than one user or job, is a forgery: nothing is done.
func TestParseJobRefuses(t *testing.T) {
	for name, change := range map[string]wire.Message{
		"root":        {{Key: "uid", Value: "0"}},
		"root's":      {{Key: "gid", Value: "0"}},
		"a path":      {{Key: "job", Value: "7.s/../8.s"}},
		"no image":    {{Key: "image", Value: ""}},
		"many groups": {{Key: "groups", Value: "x"}},
	} {
		m := slices.DeleteFunc(slices.Clone(jobRequest), func(r wire.Record) bool { return r.Key == change[0].Key })
		if _, err := parseJob(append(m, change...)); err == nil {
			t.Errorf("%s: taken", name)
		}
	}
	for _, key := range []string{"job", "uid", "gid"} {
		if _, err := parseJob(jobRequest.Add(key, jobRequest.Get(key))); err == nil || !strings.Contains(err.Error(), "2 values") {
			t.Errorf("two of %s: %v", key, err)
		}
	}
}
