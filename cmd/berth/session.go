package main

import (
	"os"
	"os/user"
	"path/filepath"
	"strconv"

	"github.com/berth-hpc/berth/cmd/internal/config"
	"github.com/berth-hpc/berth/fault"
	"github.com/berth-hpc/berth/imagecache"
	"github.com/berth-hpc/berth/imagecache/store"
	"github.com/sirupsen/logrus"
)

// A session is what every command starts from: the process, the settings and
// the log. Its user is the account of the process as the system knows it.
type session struct {
	process
	log      *logrus.Logger
	progress string // --progress
	user     account
	looked   map[string]bool // variables that were looked at; see reuse.go
	read     []string        // files that were read for the settings
}

// lookup is how variables are looked at that something may depend on.
func (s *session) lookup(name string) (string, bool) {
	if s.looked != nil {
		s.looked[name] = true
	}
	return s.lookupEnv(name)
}

// An account is a line of the system's user database. Name and Home are empty
// for a uid that it does not know.
type account struct {
	uid, gid   int
	name, home string
}

func currentAccount() account {
	a := account{uid: os.Getuid(), gid: os.Getgid()}
	if u, err := user.LookupId(strconv.Itoa(a.uid)); err == nil {
		a.name, a.home = u.Username, u.HomeDir
	}
	return a
}

// env returns a variable, "" when it is not set.
func (s *session) env(name string) string {
	v, _ := s.lookup(name)
	return v
}

// settings reads the settings that hold for this process. Root, and the
// account that does a node's network work, get the site's alone.
func (s *session) settings() (*config.Config, error) {
	src := config.Source{Dir: s.configDir, Home: s.user.home}
	if s.user.uid == 0 {
		return config.Load(src)
	}
	site, err := config.Load(src)
	if err != nil || site.Node.Account == s.user.name {
		return site, err
	}
	if home := s.env("HOME"); filepath.IsAbs(home) {
		src.Home = home
	}
	src.Cache, src.Env = s.env("XDG_CACHE_HOME"), s.lookup
	src.User = filepath.Join(s.configHome(src.Home), "berth", "berth.toml")
	if s.read, err = config.Files(src); err != nil {
		return nil, err
	}
	return config.Load(src)
}

// home is the user's home folder: the account's, else $HOME where the system
// does not know the account.
func (s *session) home() string {
	if s.user.home != "" {
		return s.user.home
	}
	return s.env("HOME")
}

func (s *session) configHome(home string) string {
	if dir := s.env("XDG_CONFIG_HOME"); filepath.IsAbs(dir) {
		return dir
	}
	return filepath.Join(home, ".config")
}

// ownStore opens the user's store, made when needed.
func ownStore(cfg *config.Config) (*store.Store, error) {
	if cfg.Store.UserDir == "" {
		return nil, &fault.Error{
			Op: "open store", Blame: fault.User, Err: errNoHome,
			Remedy: "set HOME, or BERTH_STORE_USER_DIR to a folder of yours on a local disk",
		}
	}
	return store.Open(cfg.Store.UserDir)
}

// network returns how registries are reached, with the user's logins.
func (s *session) network(cfg *config.Config) imagecache.Network {
	net := anonymous(cfg)
	net.Credentials = imagecache.Keychain(s.keychain(cfg))
	return net
}

// anonymous returns how registries are reached by nobody in particular.
func anonymous(cfg *config.Config) imagecache.Network {
	hosts := map[string]imagecache.Host{}
	for host, r := range cfg.Registry {
		hosts[host] = imagecache.Host{Insecure: r.Insecure, CAFile: r.CA, Mirrors: r.Mirrors, Proxy: r.Proxy, TakesLogins: r.TakesLogins, API: imagecache.API(r.API)}
	}
	n := cfg.Network
	return imagecache.Network{
		Hosts: hosts, Proxy: n.Proxy, NoProxy: n.NoProxy,
		HeaderTimeout: n.HeaderTimeout, StallTimeout: n.StallTimeout, MinRate: int64(n.MinRate), Retries: retries(n.Retries), MaxManifest: int64(cfg.Limits.Manifest),
	}
}

// retries is n as imagecache.Network has it.
func retries(n int) int {
	if n == 0 {
		return -1
	}
	return n
}

// limits bound what an image may cost.
func limits(cfg *config.Config) imagecache.Limits {
	l := cfg.Limits
	return imagecache.Limits{Entries: l.Entries, Bytes: int64(l.Bytes), Ratio: l.Ratio, Layers: l.Layers}
}

// fetchOptions are the settings that hold for getting images, with net.
func fetchOptions(cfg *config.Config, net imagecache.Network) imagecache.FetchOptions {
	return imagecache.FetchOptions{
		Network: net, Parallel: cfg.Network.Parallel, Version: berthVersion(),
		Converter: imagecache.ConverterNamed(cfg.Store.Converter, limits(cfg)),
	}
}

// An imageRef is how commands take an image: its name, and which of its
// platforms is meant.
type imageRef struct {
	Image    string `arg:"" name:"image" help:"[REGISTRY/]NAME[:TAG][@DIGEST], oci:FOLDER[:TAG], oci-archive:FILE[:TAG], docker-archive:FILE[:TAG], dir:FOLDER, or a path that begins with . or /."`
	Platform string `placeholder:"OS/ARCH" help:"Take the image for this platform instead of this machine's."`
}

// parse returns the reference and the platform that the user named.
func (r *imageRef) parse() (ref imagecache.Reference, platform imagecache.Platform, err error) {
	if ref, err = imagecache.ParseReference(r.Image); err != nil {
		return ref, platform, err
	}
	platform, err = imagecache.ParsePlatform(r.Platform)
	return ref, platform, err
}
