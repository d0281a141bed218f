package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/berth-hpc/berth/testdata/images"
	"github.com/berth-hpc/berth/testdata/registry/server"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/rogpeppe/go-internal/testscript"
	"golang.org/x/sys/unix"
)

// testUID is whom the scripts run as where the tests are run by root. No
// account of that number need exist.
const testUID = 24601

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"berth": testBerth, "unsquash": testUnsquash, "asuser": testAsUser, "gentle": testGentle})
}

// testBerth is the real program, with the site's settings in $SITE and
// without root's rights.
func testBerth() {
	if os.Getuid() == 0 && os.Getenv("AS_ROOT") == "" {
		becomeUser()
	}
	os.Exit(run(context.Background(), process{
		args: os.Args[1:], stdin: os.Stdin, stdout: os.Stdout, stderr: os.Stderr,
		lookupEnv: os.LookupEnv, environ: os.Environ, configDir: os.Getenv("SITE"),
	}))
}

// testGentle becomes a command as warming starts what it needs: from any thread.
func testGentle() {
	beGentle()
	cmd := exec.Command(os.Args[1], os.Args[2:]...)
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	if err := cmd.Run(); err != nil {
		fmt.Fprintln(os.Stderr, "gentle:", err)
		os.Exit(99)
	}
}

// testAsUser runs a command as the user of the scripts, in a session and a mount
// namespace in which all that it starts is together.
func testAsUser() {
	_, err := unix.Setsid()
	program, lookErr := exec.LookPath(os.Args[1])
	if err = errors.Join(err, lookErr); err == nil {
		becomeUserFor(program, os.Args[1:])
	}
	fmt.Fprintln(os.Stderr, "asuser:", err)
	os.Exit(99)
}

// becomeUser starts the program again as an ordinary user: a process that
// only changed its uid would not count as one for the kernel (it is not
// dumpable). Where $FUSE_MODE is set, /dev/fuse has that mode for it.
func becomeUser() { becomeUserFor("/proc/self/exe", os.Args) }

func becomeUserFor(program string, args []string) {
	runtime.LockOSThread() // a mount namespace is a thread's; exec keeps this one's
	var err error
	if mode := os.Getenv("FUSE_MODE"); mode != "" {
		err = replaceFUSE(mode)
	}
	if ids := os.Getenv("SUB_IDS"); err == nil && ids != "" {
		err = giveSubIDs(ids)
	}
	if err == nil {
		err = errors.Join(syscall.Setgroups(nil), syscall.Setgid(testUID), syscall.Setuid(testUID))
	}
	if err == nil {
		err = syscall.Exec(program, args, os.Environ())
	}
	fmt.Fprintln(os.Stderr, "become an ordinary user:", err)
	os.Exit(99)
}

// giveSubIDs gives the user an account and, in a mount namespace of this
// process's, further ids START:COUNT[;LINE], as a site's administrator does.
func giveSubIDs(ids string) error {
	ids = strings.ReplaceAll(ids, ";", "\n")
	if err := errors.Join(unix.Unshare(unix.CLONE_NEWNS), unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""),
		unix.Mount("ids", "/mnt", "tmpfs", 0, "mode=0755")); err != nil {
		return err
	}
	for name, line := range map[string]string{
		"subuid": "scripts:" + ids, "subgid": "scripts:" + ids,
		"passwd": fmt.Sprintf("scripts:x:%d:%d::%s:/bin/sh", testUID, testUID, os.Getenv("HOME")),
	} {
		old, _ := os.ReadFile("/etc/" + name) // it need not be there
		if name != "passwd" {
			old = nil
		}
		err := os.WriteFile("/mnt/"+name, append(old, line+"\n"...), 0o644)
		if err == nil {
			err = unix.Mount("/mnt/"+name, "/etc/"+name, "", unix.MS_BIND, "")
		}
		if err != nil {
			return err
		}
	}
	return unix.Unmount("/mnt", unix.MNT_DETACH)
}

// replaceFUSE gives this process a /dev/fuse with the octal mode given, in a
// mount namespace of its own: udev makes it 0666, build machines without udev
// leave it to root.
func replaceFUSE(mode string) error {
	bits, err := strconv.ParseUint(mode, 8, 32)
	if err != nil {
		return err
	}
	if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
		return err
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return err
	}
	if err := unix.Mount("dev", "/mnt", "tmpfs", 0, "mode=0755"); err != nil {
		return err
	}
	const node = "/mnt/fuse"
	err = errors.Join(unix.Mknod(node, unix.S_IFCHR, int(unix.Mkdev(10, 229))), os.Chmod(node, fs.FileMode(bits)))
	if err == nil {
		err = unix.Mount(node, "/dev/fuse", "", unix.MS_BIND, "")
	}
	return errors.Join(err, unix.Unmount("/mnt", unix.MNT_DETACH))
}

// TestScripts runs testdata/script/*.txtar, each with a registry of its own
// in $REGISTRY and an address at which nothing listens in $NOWHERE.
//
// The registry holds tiny:v1, tiny:v2 (another digest), foreign:v1 (for s390x
// only) and many:v1 (an index of tiny:v1 and foreign:v1). tiny.tar is tiny:v1
// as docker save writes it, tiny.oci the same as an OCI layout. Repositories
// below faults/ fail as server.Faults says.
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir: "testdata/script", Setup: setUp, Condition: condition,
		Cmds: commands(),
	})
}

// setUp makes what every script finds.
func setUp(env *testscript.Env) error {
	tb := env.T().(testing.TB)
	stalled := make(chan string, 16)
	reg := server.Start(tb, server.Options{Wrap: func(next http.Handler) http.Handler {
		return server.Faults(stalling(stalled)(scriptCatalogue().Wrap(next)))
	}})
	if err := fill(tb.Context(), reg.Host, env.WorkDir); err != nil {
		return err
	}
	reg.Forget()
	env.Values["registry"], env.Values["stalled"] = reg, stalled
	env.Setenv("REGISTRY", reg.Host)
	env.Setenv("ESC", "\x1b")
	env.Setenv("NOWHERE", "127.0.0.1:1")
	env.Setenv("SITE", filepath.Join(env.WorkDir, "etc"))
	env.Setenv("HOME", filepath.Join(env.WorkDir, "home"))
	if err := os.MkdirAll(filepath.Join(env.WorkDir, "home"), 0o700); err != nil {
		return err
	}
	return handOver(env.WorkDir)
}

// scriptCatalogue is what the registry says when it is asked as Quay, Docker
// Hub or Harbor are.
func scriptCatalogue() server.Catalogue {
	pushed := time.Date(2024, 5, 6, 12, 0, 0, 0, time.UTC)
	tag := func(name, digit string, size int64) server.Tag {
		return server.Tag{Name: name, Digest: "sha256:" + strings.Repeat(digit, 64), Size: size, Pushed: pushed}
	}
	return server.Catalogue{Repositories: []server.Repository{
		{Name: "bio/samtools", Description: "Tools for \x1b[31mSAM\u009b files", Stars: 3, Pulls: 1000, Tags: []server.Tag{
			tag("latest", "1", 90e6), tag("1.9--h91753b0_8", "2", 70e6), tag("1.17--h00cdaf9_0", "3", 80e6), tag("1.17--hd87286a_1", "4", 90e6),
		}},
		{Name: "bio/bwa", Description: "its output is for samtools"},
		{Name: "library/samtools", Official: true},
	}}
}

// stalling answers no request for repositories called stalled before the
// client gives up; it tells of each.
func stalling(tell chan<- string) func(http.Handler) http.Handler {
	return func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if strings.Contains(r.URL.Path, "/stalled/") {
				tell <- r.URL.Path
				<-r.Context().Done()
				return
			}
			next.ServeHTTP(w, r)
		})
	}
}

// stalls waits until a request stalls.
func stalls(ts *testscript.TestScript, _ bool, _ []string) {
	select {
	case <-ts.Value("stalled").(chan string):
	case <-time.After(20 * time.Second):
		ts.Fatalf("no request came")
	}
}

// commands are the words that scripts have besides testscript's own.
func commands() map[string]func(*testscript.TestScript, bool, []string) {
	return map[string]func(*testscript.TestScript, bool, []string){"exits": exits, "asked": asked, "stalls": stalls}
}

// handOver gives the work folder to the user of the scripts, and makes the
// way to it and to the programs passable.
func handOver(dir string) error {
	if os.Getuid() != 0 {
		return nil
	}
	program, err := exec.LookPath("berth")
	if err != nil {
		return err
	}
	for _, path := range []string{dir, program} {
		if err := openWay(path); err != nil {
			return err
		}
	}
	return filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		return os.Lchown(path, testUID, testUID)
	})
}

// openWay lets everyone pass the folders between the one for temporary files
// and path, which lies below it.
func openWay(path string) error {
	top := filepath.Clean(os.TempDir())
	if !strings.HasPrefix(path, top+"/") {
		return fmt.Errorf("%s is not below %s", path, top)
	}
	for up := filepath.Dir(path); up != top; up = filepath.Dir(up) {
		if err := os.Chmod(up, 0o711); err != nil {
			return err
		}
	}
	return nil
}

// exits runs a command and compares its exit status: exits 64 berth pull x.
func exits(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: exits STATUS COMMAND [ARG...]")
	}
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	got := 0
	if err := ts.Exec(args[1], args[2:]...); err != nil {
		exit, ok := errors.AsType[*exec.ExitError](err)
		if !ok {
			ts.Fatalf("%v", err)
		}
		got = exit.ExitCode()
	}
	if got != want {
		ts.Fatalf("exit status %d, want %d", got, want)
	}
}

// asked compares how many requests the registry has had since the last time,
// with the method and path part given: asked 1 HEAD manifests.
func asked(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 3 {
		ts.Fatalf("usage: asked COUNT METHOD PATH-PART")
	}
	reg := ts.Value("registry").(*server.Started)
	method, part := strings.TrimPrefix(args[1], "ANY"), strings.TrimPrefix(args[2], "ANY")
	if got := strconv.Itoa(reg.Count(method, part)); got != args[0] {
		ts.Fatalf("the registry was asked %s times: %v", got, reg.Requests())
	}
	reg.Forget()
}

// fill puts images into the registry at host, and files into dir.
func fill(ctx context.Context, host, dir string) error {
	made := map[string]v1.Image{}
	for _, name := range []string{"tiny:v1", "tiny:v2", "foreign:v1"} {
		img, err := testImage(name)
		if err != nil {
			return err
		}
		if _, err := images.Push(ctx, host, name, img); err != nil {
			return err
		}
		made[name] = img
	}
	tool, err := toolOn(made["tiny:v1"])
	if err == nil {
		_, err = images.Push(ctx, host, "bio/tool:1.0--h1_0", tool)
	}
	if err != nil {
		return err
	}
	if err := pushIndex(ctx, host+"/many:v1", made["tiny:v1"], made["foreign:v1"]); err != nil {
		return err
	}
	if err := images.WriteDockerArchive(filepath.Join(dir, "tiny.tar"), "tiny:v1", made["tiny:v1"]); err != nil {
		return err
	}
	return images.WriteLayout(filepath.Join(dir, "tiny.oci"), "v1", made["tiny:v1"])
}

func testImage(name string) (v1.Image, error) {
	img, err := images.Tiny()
	if err != nil || name == "tiny:v1" {
		return img, err
	}
	cfg, err := img.ConfigFile()
	if err != nil {
		return nil, err
	}
	cfg = cfg.DeepCopy()
	cfg.Config.Labels = map[string]string{"name": name}
	if name == "foreign:v1" {
		cfg.Architecture = "s390x"
	}
	return mutate.ConfigFile(img, cfg)
}

// toolOn is an image with one layer on base's, and a history that its maker
// wrote with terminals and shells in mind.
func toolOn(base v1.Image) (v1.Image, error) {
	layer := static.NewLayer(make([]byte, 1024), types.OCIUncompressedLayer) // the end of a tar file
	img, err := mutate.Append(base, mutate.Addendum{Layer: layer, History: v1.History{
		CreatedBy: "RUN \x1b[2J make\n  install \u009b", Created: v1.Time{Time: time.Date(2024, 5, 6, 12, 0, 0, 0, time.UTC)},
	}})
	if err != nil {
		return nil, err
	}
	cfg, err := img.ConfigFile()
	if err != nil {
		return nil, err
	}
	cfg = cfg.DeepCopy()
	cfg.Author, cfg.Created = "Ada \x1b[31m", v1.Time{Time: time.Date(2024, 5, 6, 12, 0, 0, 0, time.UTC)}
	cfg.Config.Labels = map[string]string{"software": "$(reboot)", "org.opencontainers.image.base.name": "debian:12"}
	cfg.Config.Entrypoint, cfg.Config.Cmd = nil, nil
	return mutate.ConfigFile(img, cfg)
}

// pushIndex makes one name stand for images of several platforms.
func pushIndex(ctx context.Context, ref string, members ...v1.Image) error {
	to, err := name.ParseReference(ref, name.Insecure)
	if err != nil {
		return err
	}
	index := mutate.IndexMediaType(empty.Index, types.OCIImageIndex)
	for _, img := range members {
		cfg, err := img.ConfigFile()
		if err != nil {
			return err
		}
		index = mutate.AppendManifests(index, mutate.IndexAddendum{Add: img, Descriptor: v1.Descriptor{Platform: cfg.Platform()}})
	}
	return remote.WriteIndex(to, index, remote.WithContext(ctx))
}

func condition(name string) (bool, error) {
	if name == "root" {
		return os.Getuid() == 0, nil
	}
	return false, fmt.Errorf("unknown condition %s", name)
}
