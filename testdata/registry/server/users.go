package server

import (
	"crypto/rand"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"sync"
)

// Users is a registry's users by name, with their passwords in clear. Once
// Lock was called, its Wrap lets nobody in without a login; repositories below
// NAME/ are that user's alone, those below shared/ every user's.
type Users struct {
	Passwords map[string]string
	Tokens    bool // by bearer tokens, from /token; else by basic authentication

	mu     sync.Mutex
	locked bool
	issued map[string]string // token → user
}

// Lock begins to ask for logins. Before, tests fill the registry.
func (u *Users) Lock() {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.locked = true
}

// Issued returns all tokens that were given out.
func (u *Users) Issued() []string {
	u.mu.Lock()
	defer u.mu.Unlock()
	var all []string
	for token := range u.issued {
		all = append(all, token)
	}
	return all
}

// Wrap puts the users in front of a registry.
func (u *Users) Wrap(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		u.mu.Lock()
		locked := u.locked
		u.mu.Unlock()
		switch user, known := u.who(req); {
		case !locked:
			next.ServeHTTP(w, req)
		case u.Tokens && req.URL.Path == "/token":
			u.issue(w, req)
		case !known:
			u.challenge(w, req)
		case !mayRead(user, req.URL.Path):
			refuse(w, http.StatusForbidden, "")
		default:
			next.ServeHTTP(w, req)
		}
	})
}

// who returns the user of a request that shows a password or a token.
func (u *Users) who(req *http.Request) (user string, known bool) {
	if !u.Tokens {
		return u.byPassword(req)
	}
	token, ok := strings.CutPrefix(req.Header.Get("Authorization"), "Bearer ")
	if !ok {
		return "", false
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	user, known = u.issued[token]
	return user, known
}

func (u *Users) byPassword(req *http.Request) (user string, known bool) {
	user, password, ok := req.BasicAuth()
	return user, ok && u.Passwords[user] == password && password != ""
}

func (u *Users) issue(w http.ResponseWriter, req *http.Request) {
	user, known := u.byPassword(req)
	if !known {
		refuse(w, http.StatusUnauthorized, "")
		return
	}
	token := "token-" + rand.Text()
	u.mu.Lock()
	if u.issued == nil {
		u.issued = map[string]string{}
	}
	u.issued[token] = user
	u.mu.Unlock()
	_ = json.NewEncoder(w).Encode(map[string]string{"token": token})
}

func (u *Users) challenge(w http.ResponseWriter, req *http.Request) {
	challenge := `Basic realm="test"`
	if u.Tokens {
		challenge = fmt.Sprintf(`Bearer realm="http://%s/token",service="test"`, req.Host)
	}
	w.Header().Set("WWW-Authenticate", challenge)
	refuse(w, http.StatusUnauthorized, "")
}

func mayRead(user, path string) bool {
	repository := strings.TrimPrefix(path, "/v2/")
	return repository == "" || strings.HasPrefix(repository, user+"/") || strings.HasPrefix(repository, "shared/")
}
