package credentials

import (
	"errors"
	"strings"
	"testing"
)

// FuzzSources: whatever stands in a file, nothing is executed, nothing panics,
// and a login that is found has a secret.
func FuzzSources(f *testing.F) {
	for _, text := range []string{
		authJSON([3]string{"quay.io/team", "a", "p"}), `{"auths":{"quay.io":{"auth":"="}}}`, `{"auths":null,"credHelpers":{"":""}}`,
		"machine quay.io login a password \"p", "machine quay.io login $(x password $(", "quay.io=a:b", "quay.io=",
		"machine\nmachine quay.io password", `{"auths":{"quay.io":{"password":1}}}`,
	} {
		f.Add(text)
	}
	t := Target{Registry: "quay.io", Repository: "team/tool"}
	f.Fuzz(func(tt *testing.T, text string) {
		k := &Keychain{}
		if a, err := parseAuths([]byte(text), "file"); err == nil {
			if login, err := a.entry(t); err != nil && !login.IsZero() {
				tt.Errorf("%v and %v", login, err)
			}
			a.helper(t)
			a.list()
		}
		for _, e := range parseNetrc(text) {
			login, err := netrcFile{"file"}.login(k, e)
			if err == nil && strings.Contains(login.Password().Reveal(), "$(") {
				tt.Errorf("a command is taken for a password: %q", text)
			}
		}
		_, _ = Variable{"V", NewSecret(text)}.look(tt.Context(), k, t)
		if key := Key(text); Key(key) != key {
			tt.Errorf("%q is %q, and that is %q", text, key, Key(key))
		}
	})
}

// FuzzAnswer: what a process of a user's writes is a login, a failure, or
// nonsense, and all of it can be printed.
func FuzzAnswer(f *testing.F) {
	for _, text := range []string{"", "{}", `{"login":{"name":"a\u001b","password":"p"}}`, `{"failure":{"text":"x"}}`, "null", "[]"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		login, err := ReadAnswer(strings.NewReader(text))
		if err != nil && !login.IsZero() {
			t.Errorf("%v and %v", login, err)
		}
		for _, s := range []string{login.Name(), login.Source(), errors.Join(err, errors.New("")).Error()} {
			if strings.ContainsAny(s, "\x1b\r\x00") {
				t.Errorf("%q", s)
			}
		}
	})
}
