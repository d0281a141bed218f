package images

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io/fs"
	"runtime"
	"slices"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// A Recipe says what an image is made of. Exactly one of Suite, Busybox and
// Parent is set.
type Recipe struct {
	Name    string
	Suite   string // a minimal Debian of this suite
	Busybox string // a layout of files around busybox, see busyboxFiles
	Parent  string // one more layer on that image

	Packages []string // installed in the layer on Parent
	Script   string   // then run there by sh
	Compile  *Compile // programs in a further layer
	Config   v1.Config
}

// A Compile builds programs against the image's own libraries. It happens in
// a copy of the image that is thrown away.
type Compile struct {
	Sources  string   // folder of recipeFiles, at /share/src
	Packages []string // compilers and headers
	Script   string   // run by sh in /share/src, leaves programs in /share/out
	Dest     string   // folder in the image for what is in /share/out
}

const debianPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

func recipes() []Recipe {
	return []Recipe{
		{Name: "base", Suite: "bookworm", Config: config("", "bash")},
		{
			Name: "bio", Parent: "base",
			Packages: []string{"bwa", "samtools"},
			Config:   config("/data", "bash", "BIO_IMAGE=1", "LC_ALL=C.UTF-8"),
		},
		{
			Name: "mpi", Parent: "base",
			Packages: []string{"openmpi-bin"},
			Compile: &Compile{
				Sources:  "mpi",
				Packages: []string{"gcc", "libc6-dev", "libopenmpi-dev"},
				Script:   "for c in *.c; do mpicc -O2 -Wall -Wextra -Werror -o ../out/${c%.c} $c; done",
				Dest:     "usr/local/bin",
			},
			Config: config("", "mpi-hello", "MPI_IMAGE=1"),
		},
		{
			Name: "mpich", Parent: "base",
			Packages: []string{"libmpich12"},
			Compile: &Compile{
				Sources:  "mpi",
				Packages: []string{"gcc", "libc6-dev", "libmpich-dev"},
				Script:   "for c in *.c; do mpicc.mpich -O2 -Wall -Wextra -Werror -o ../out/${c%.c} $c; done",
				Dest:     "usr/local/bin",
			},
			Config: config("", "mpi-hello", "MPI_IMAGE=mpich"),
		},
		{
			Name: "python", Parent: "base",
			Packages: []string{"python3", "python3-numpy", "python3-scipy", "python3-pandas"},
			Config:   config("", "python3"),
		},
		{
			// Large: over 50,000 entries and 1 GB, for measurements.
			Name: "science", Parent: "python",
			Packages: []string{
				"python3-matplotlib", "python3-sklearn", "python3-statsmodels", "python3-skimage", "python3-networkx",
				"python3-sympy", "python3-astropy", "python3-numba", "g++", "git",
			},
			Config: config("", "python3"),
		},
		{Name: "jupyter", Parent: "base", Packages: []string{"jupyter-notebook"}, Config: config("", "jupyter-notebook")},
		{
			// What Berth knows PyTorch's images by; PyTorch is not in it.
			Name: "torch", Parent: "base", Script: "true", Config: config("", "bash", "PYTORCH_VERSION=2.3.0"),
		},
		{
			// A machine of a cluster (testdata/cluster, --root), for tests that install packages.
			Name: "node", Parent: "base",
			Packages: []string{
				"slurmctld", "slurmd", "slurm-client", "slurm-wlm-basic-plugins", "munge", "tini",
				"iproute2", "procps", "systemd", "bash-completion",
			},
			Config: config("", "bash"),
		},
		{Name: "changed", Parent: "bio", Script: changes, Config: config("/data", "bash")},
		{Name: "tiny", Busybox: "plain", Config: config("", "sh", "TINY_IMAGE=1")},
		{Name: "links", Busybox: "links", Config: config("", "sh")},
		{Name: "bare", Busybox: "bare", Config: v1.Config{Cmd: []string{"/bin/sh"}}},
	}
}

// changes are what layers express in odd ways: files and folders removed,
// replaced by another kind, renamed, linked to a lower layer's, unreadable.
const changes = `
	cd /
	rm usr/bin/wgsim
	rm -r etc/gss && mkdir etc/gss && echo new >etc/gss/new
	mv etc/skel etc/skeleton
	ln usr/bin/bwa usr/local/bin/bwa-link
	rm etc/issue && mkdir etc/issue && echo folder >etc/issue/file
	rmdir srv && ln -s /opt srv
	echo secret >etc/none && chmod 0 etc/none
	echo '#!/bin/sh' >usr/local/bin/setuid && chmod 4755 usr/local/bin/setuid
	echo user >home/user && chown 1234:5678 home/user
	mknod etc/null c 1 3
	mkfifo var/pipe
	echo "a b" >"home/blank and
newline"
	mkdir data && chmod 1777 data`

// Names lists the images that Build can make.
func Names() []string {
	var names []string
	for _, r := range recipes() {
		names = append(names, r.Name)
	}
	return names
}

func config(workdir, cmd string, env ...string) v1.Config {
	return v1.Config{
		Env:        append([]string{"PATH=" + debianPath}, env...),
		WorkingDir: workdir,
		Cmd:        []string{cmd},
		Labels:     map[string]string{"org.opencontainers.image.vendor": "Berth's tests"},
	}
}

func recipeNamed(name string) (Recipe, error) {
	all := recipes()
	i := slices.IndexFunc(all, func(r Recipe) bool { return r.Name == name })
	if i < 0 {
		return Recipe{}, fmt.Errorf("no image is called %q; there are: %s", name, strings.Join(Names(), " "))
	}
	return all[i], nil
}

// key names what a recipe makes: 12 hex digits over everything that the
// bytes depend on, but for the state of the package archive.
func (r Recipe) key() (string, error) {
	h := sha256.New()
	fmt.Fprintln(h, runtime.GOARCH)
	if r.Parent != "" {
		parent, err := recipeNamed(r.Parent)
		if err != nil {
			return "", err
		}
		key, err := parent.key()
		if err != nil {
			return "", err
		}
		fmt.Fprintln(h, key)
	}
	if err := json.NewEncoder(h).Encode(r); err != nil {
		return "", err
	}
	for _, name := range r.files() {
		data, err := recipeFiles.ReadFile(name)
		if err != nil {
			return "", err
		}
		fmt.Fprintf(h, "%s %x\n", name, sha256.Sum256(data))
	}
	return hex.EncodeToString(h.Sum(nil))[:12], nil
}

// files are the recipe's own among recipeFiles.
func (r Recipe) files() []string {
	names := []string{"assemble.go"}
	switch {
	case r.Suite != "":
		names = append(names, "layer.go", "base.sh")
	case r.Busybox != "":
		names = append(names, "files.go", "busybox.go")
	default:
		names = append(names, "layer.go", "chroot.sh")
	}
	if r.Compile != nil {
		sources, _ := fs.Glob(recipeFiles, r.Compile.Sources+"/*") // the pattern is fixed
		names = append(names, sources...)
	}
	return names
}
