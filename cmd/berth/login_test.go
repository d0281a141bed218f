package main

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/berth-hpc/berth/testdata/images"
	"github.com/berth-hpc/berth/testdata/registry/server"
	"github.com/rogpeppe/go-internal/testscript"
)

// passwordOf is a test user's password; it is in no other string.
func passwordOf(user string) string { return user + "-s3cret" }

// TestPrivateScripts runs testdata/private/*.txtar. Beside what TestScripts
// has, there are two registries with the users alice and bob: $BASIC takes
// passwords, $TOKENS wants tokens. Both have alice/tiny:v1 and bob/tiny:v1,
// each for its user alone.
func TestPrivateScripts(t *testing.T) {
	more := commands()
	more["authfile"], more["credentials"], more["clean"] = writeAuthFile, writeCredentials, clean
	testscript.Run(t, testscript.Params{
		Dir: "testdata/private", Condition: condition, Cmds: more,
		Setup: func(env *testscript.Env) error {
			for name, tokens := range map[string]bool{"BASIC": false, "TOKENS": true} {
				reg, users, err := privateRegistry(env.T().(testing.TB), tokens)
				if err != nil {
					return err
				}
				env.Setenv(name, reg.Host)
				env.Values[name] = users
			}
			return setUp(env)
		},
	})
}

func privateRegistry(t testing.TB, tokens bool) (*server.Started, *server.Users, error) {
	users := &server.Users{Tokens: tokens, Passwords: map[string]string{"alice": passwordOf("alice"), "bob": passwordOf("bob")}}
	reg := server.Start(t, server.Options{Wrap: users.Wrap})
	img, err := testImage("tiny:v1")
	if err != nil {
		return nil, nil, err
	}
	for user := range users.Passwords {
		if _, err := images.Push(t.Context(), reg.Host, user+"/tiny:v1", img); err != nil {
			return nil, nil, err
		}
	}
	users.Lock()
	return reg, users, nil
}

// writeAuthFile writes a user's login as docker does: authfile FILE HOST USER.
func writeAuthFile(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 3 {
		ts.Fatalf("usage: authfile FILE HOST USER")
	}
	auth := base64.StdEncoding.EncodeToString([]byte(args[2] + ":" + passwordOf(args[2])))
	text, err := json.Marshal(map[string]any{"auths": map[string]any{args[1]: map[string]string{"auth": auth}}})
	ts.Check(err)
	writeAsUser(ts, args[0], string(text))
}

// writeCredentials writes a login as Enroot has it: credentials FILE HOST USER.
// A user that is none is taken for the password.
func writeCredentials(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 3 {
		ts.Fatalf("usage: credentials FILE HOST USER")
	}
	user, password := args[2], passwordOf(args[2])
	if strings.HasPrefix(user, "$") {
		user, password = "alice", user
	}
	writeAsUser(ts, args[0], fmt.Sprintf("machine %s login %s password %s\n", args[1], user, password))
}

func writeAsUser(ts *testscript.TestScript, path, text string) {
	path = ts.MkAbs(path)
	ts.Check(os.WriteFile(path, []byte(text), 0o600))
	if os.Getuid() == 0 {
		ts.Check(os.Chown(path, testUID, testUID))
		ts.Check(os.Chown(filepath.Dir(path), testUID, testUID))
	}
}

// clean looks for passwords and tokens in stdout or stderr, or in all files of
// the work folder but those called auth.json and the script's own passwords.
func clean(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) > 1 {
		ts.Fatalf("usage: clean [stdout|stderr]")
	}
	if len(args) == 1 {
		findSecrets(ts, args[0], ts.ReadFile(args[0]))
		return
	}
	ts.Check(filepath.WalkDir(ts.Getenv("WORK"), func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.Name() == "passwords" {
			return fs.SkipDir
		}
		if err != nil || !d.Type().IsRegular() || d.Name() == "auth.json" {
			return err
		}
		data, err := os.ReadFile(path)
		findSecrets(ts, path, string(data))
		return err
	}))
}

func findSecrets(ts *testscript.TestScript, what, text string) {
	secrets := []string{"wr0ng-s3cret"}
	for _, user := range []string{"alice", "bob"} {
		secrets = append(secrets, passwordOf(user), base64.StdEncoding.EncodeToString([]byte(user+":"+passwordOf(user))))
	}
	for _, name := range []string{"BASIC", "TOKENS"} {
		secrets = append(secrets, ts.Value(name).(*server.Users).Issued()...)
	}
	for _, secret := range secrets {
		if strings.Contains(text, secret) {
			ts.Fatalf("%s has a secret: %s", what, secret)
		}
	}
}
