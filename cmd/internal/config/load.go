package config

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/BurntSushi/toml"
	"github.com/berth-hpc/berth/fault"
)

// A Source says where to read from. Root and the berth account leave User
// and Env empty, so that nothing a user controls reaches them.
type Source struct {
	Dir   string                           // the site's folder; its files may be missing
	User  string                           // the user's own file, "" for none
	Env   func(name string) (string, bool) // looks up a variable; nil for none
	Home  string                           // for a leading ~/, "" when unknown
	Cache string                           // the user's cache folder, "" for Home/.cache
}

// Site is the source of root and of the berth account.
func Site() Source { return Source{Dir: Dir} }

// Load reads all of src. Its errors name the file or variable and the key.
func Load(src Source) (*Config, error) {
	c := defaults()
	files, err := siteFiles(src.Dir)
	if err != nil {
		return nil, err
	}
	for _, path := range files {
		if err := c.readFile(path, fault.Site); err != nil {
			return nil, err
		}
	}
	if src.User != "" {
		if err := c.readFile(src.User, fault.User); err != nil {
			return nil, err
		}
	}
	if err := c.readEnv(src.Env); err != nil {
		return nil, err
	}
	c.expandHome(src)
	return c, nil
}

// Files lists what Load reads of src, also what does not exist; a change of any
// of them may change settings.
func Files(src Source) ([]string, error) {
	files, err := siteFiles(src.Dir)
	files = append(files, filepath.Join(src.Dir, "conf.d"))
	if src.User != "" {
		files = append(files, src.User)
	}
	return files, err
}

// siteFiles returns berth.toml and conf.d/*.toml of dir, in reading order.
func siteFiles(dir string) ([]string, error) {
	more, err := filepath.Glob(filepath.Join(dir, "conf.d", "*.toml"))
	if err != nil {
		return nil, fmt.Errorf("list %s: %w", dir, err)
	}
	return append([]string{filepath.Join(dir, "berth.toml")}, more...), nil
}

// readFile adds what the file at path sets. Blame is Site for the site's
// files, which may set everything, and User for a user's.
func (c *Config) readFile(path string, blame fault.Blame) error {
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fault.Wrap("read", path, blame, "make the file readable, or remove it", errors.Unwrap(err))
	}
	var tree map[string]any
	meta, err := toml.Decode(string(text), &tree)
	if err != nil {
		return fault.Wrap("read", path, blame, "correct the file", syntax(err))
	}
	for _, key := range meta.Keys() {
		if isRuleKey(key) {
			continue
		}
		err := c.set(key, lookup(tree, key), Origin(path), blame == fault.Site)
		if err != nil {
			return fault.Wrap("read", path, blame, "correct the file; `berth config template` explains every key", err)
		}
	}
	err = c.readRules(tree, Origin(path), blame == fault.Site)
	return fault.Wrap("read", path, blame, "correct the file; `berth config template` explains every key", err)
}

// syntax returns the line and cause of a TOML error, in one line.
func syntax(err error) error {
	var p toml.ParseError
	if !errors.As(err, &p) {
		return err
	}
	return fmt.Errorf("line %d: %s", p.Position.Line, firstLine(p))
}

func firstLine(p toml.ParseError) string {
	text := p.Message
	if text == "" {
		text = strings.TrimPrefix(p.Error(), "toml: ")
	}
	line, _, _ := strings.Cut(text, "\n")
	return line
}

// lookup returns the value at key, nil when there is none.
func lookup(tree map[string]any, key toml.Key) any {
	var at any = tree
	for _, part := range key {
		table, _ := at.(map[string]any)
		at = table[part]
	}
	return at
}

// set stores one value of a file. Tables are walked by their members; here
// they only have to be known.
func (c *Config) set(key toml.Key, value any, from Origin, site bool) error {
	if _, table := value.(map[string]any); table && knownTable(key) {
		return nil
	}
	s, host, ok := find(key)
	switch {
	case !ok:
		return fmt.Errorf("unknown key %s", key)
	case !site && !s.Open:
		return fmt.Errorf("%s is for the site to set, in %s", key, filepath.Join(Dir, "berth.toml"))
	}
	if err := assign(s.at(c, host), value); err != nil {
		return fmt.Errorf("%s: %w", key, err)
	}
	return c.accept(s, host, from)
}

// accept checks the value just stored and notes where it came from.
func (c *Config) accept(s Setting, host string, from Origin) error {
	if s.check != nil {
		if err := s.check(deref(s.at(c, host))); err != nil {
			return fmt.Errorf("%s: %w", s.fullKey(host), err)
		}
	}
	c.origin[s.fullKey(host)] = from
	return nil
}

func (s Setting) fullKey(host string) string {
	return strings.Replace(s.Key, "*", quote(host), 1)
}

// find returns the setting that key names, and the registry's host in it.
func find(key toml.Key) (s Setting, host string, ok bool) {
	for _, s := range Settings() {
		parts := strings.Split(s.Key, ".")
		if len(parts) != len(key) || !samePrefix(parts, key) {
			continue
		}
		if s.perHost() {
			host = key[1]
		}
		return s, host, true
	}
	return Setting{}, "", false
}

// knownTable says whether some setting lies below key.
func knownTable(key toml.Key) bool {
	for _, s := range Settings() {
		parts := strings.Split(s.Key, ".")
		if len(parts) > len(key) && samePrefix(parts[:len(key)], key) {
			return true
		}
	}
	return false
}

func samePrefix(pattern []string, key toml.Key) bool {
	for i, p := range pattern {
		if p != "*" && p != key[i] {
			return false
		}
	}
	return true
}

// readEnv adds what BERTH_ variables set. An empty one counts as not set.
func (c *Config) readEnv(env func(string) (string, bool)) error {
	if env == nil {
		return nil
	}
	for _, s := range Settings() {
		name := s.Env()
		if name == "" {
			continue
		}
		text, _ := env(name)
		if text == "" {
			continue
		}
		err := assignText(s.at(c, ""), text)
		if err == nil {
			err = c.accept(s, "", Origin("$"+name))
		}
		if err != nil {
			return fault.Wrap("read", "$"+name, fault.User, "correct the variable, or unset it", err)
		}
	}
	return nil
}

// expandHome puts the user's folders into the paths that may lie there.
func (c *Config) expandHome(src Source) {
	cache := src.Cache
	if !filepath.IsAbs(cache) && src.Home != "" {
		cache = filepath.Join(src.Home, ".cache")
	}
	if c.Store.UserDir == "" && cache != "" {
		c.Store.UserDir = filepath.Join(cache, "berth")
	}
	c.Store.UserDir = underHome(c.Store.UserDir, src.Home)
	for _, r := range c.Registry {
		r.CA = underHome(r.CA, src.Home)
	}
}

func underHome(path, home string) string {
	rest, ok := strings.CutPrefix(path, "~/")
	if !ok || home == "" {
		return path
	}
	return filepath.Join(home, rest)
}
