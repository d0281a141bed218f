package main

import (
	"path/filepath"
	"sync"

	"github.com/berth-hpc/berth/cmd/internal/config"
	"github.com/berth-hpc/berth/imagecache/credentials"
)

// loginVariables hold logins themselves. No other program needs to see them:
// neither credential helpers nor the command in a container.
func loginVariables() []string { return []string{"BERTH_REGISTRY_AUTH", "DOCKER_AUTH_CONFIG"} }

// keychain looks for the logins of the user who runs this command.
func (s *session) keychain(cfg *config.Config) *credentials.Keychain {
	k := &credentials.Keychain{
		Places: s.loginPlaces(), Expand: s.lookupEnv, Warn: s.warnOnce(),
		Helpers: &credentials.Helpers{
			Path: s.env("PATH"), Environ: s.withoutLogins(), Limit: cfg.Login.HelperTimeout,
		},
	}
	for _, name := range loginVariables() {
		if text := s.env(name); text != "" {
			k.Variables = append(k.Variables, credentials.Variable{Name: name, Text: credentials.NewSecret(text)})
		}
	}
	return k
}

// loginPlaces are the folders of the user's environment.
func (s *session) loginPlaces() credentials.Places {
	home := s.env("HOME")
	if !filepath.IsAbs(home) {
		home = s.user.home
	}
	p := credentials.HomePlaces(home, s.user.uid)
	s.place("XDG_RUNTIME_DIR", &p.RuntimeDir)
	if s.place("XDG_CONFIG_HOME", &p.ConfigHome) {
		p.EnrootDir = filepath.Join(p.ConfigHome, "enroot")
	}
	s.place("ENROOT_CONFIG_PATH", &p.EnrootDir)
	s.place("DOCKER_CONFIG", &p.DockerDir)
	s.place("REGISTRY_AUTH_FILE", &p.AuthFile)
	return p
}

// place sets path to what a variable says, from the current folder if need be.
func (s *session) place(name string, path *string) bool {
	value := s.env(name)
	if value == "" {
		return false
	}
	*path = value
	if abs, err := filepath.Abs(value); err == nil {
		*path = abs
	}
	return true
}

// withoutLogins is the environment for other programs.
func (s *session) withoutLogins() []string {
	environ := s.environ()
	for _, name := range loginVariables() {
		environ = withoutVariable(environ, name)
	}
	return environ
}

// warnOnce logs each warning the first time.
func (s *session) warnOnce() func(string) {
	var mu sync.Mutex
	said := map[string]bool{}
	return func(text string) {
		mu.Lock()
		defer mu.Unlock()
		if !said[text] {
			s.log.Warn(text)
		}
		said[text] = true
	}
}
