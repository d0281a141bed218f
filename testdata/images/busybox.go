package images

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// busyboxImage makes the image of a recipe around busybox: one static
// program, with the awkward traits that small images have.
func (a archive) busyboxImage(ctx context.Context, r Recipe, scratch string) (v1.Image, error) {
	if err := a.unpack(ctx, "busybox-static", scratch); err != nil {
		return nil, err
	}
	program := scratch + "/bin/busybox"
	body, err := os.ReadFile(program)
	if err != nil {
		return nil, err
	}
	applets, err := run(exec.CommandContext(ctx, program, "--list"))
	if err != nil {
		return nil, err
	}
	files, err := busyboxFiles(r.Busybox, string(body), strings.Fields(string(applets)))
	if err != nil {
		return nil, err
	}
	return FromFiles(r.Config, files...)
}

// busyboxFiles are the layers of an image around busybox:
//
//	plain  as small images usually are
//	links  folders behind absolute links, as Debian's, Red Hat's and Nix's
//	       are; every folder that a container needs is one
//	bare   the program and nothing else: no folder to mount on, no users
func busyboxFiles(kind, busybox string, applets []string) ([][]File, error) {
	switch kind {
	case "plain":
		return [][]File{
			append([]File{Dir("bin"), Program("bin/busybox", busybox)}, links("bin/", applets)...),
			plainFiles(),
		}, nil
	case "links":
		programs := append([]File{Dir("usr"), Dir("usr/bin"), Program("usr/bin/busybox", busybox)}, links("usr/bin/", applets)...)
		return [][]File{programs, linkedFiles()}, nil
	case "bare":
		return [][]File{{Dir("bin"), Program("bin/busybox", busybox), Hardlink("bin/sh", "bin/busybox")}}, nil
	}
	return nil, fmt.Errorf("no busybox image is called %q", kind)
}

func links(dir string, applets []string) []File {
	var files []File
	for _, name := range applets {
		if name != "busybox" {
			files = append(files, Symlink(dir+name, "busybox"))
		}
	}
	return files
}

func plainFiles() []File {
	return []File{
		Dir("dev"), Dir("etc"), Dir("home"), Dir("proc"), Dir("run"), Dir("sys"), Dir("var"),
		{Name: "root/", Mode: 0o700},
		{Name: "tmp/", Mode: 0o777 | os.ModeSticky},
		{Name: "var/tmp/", Mode: 0o777 | os.ModeSticky},
		Text("etc/passwd", "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n"),
		Text("etc/group", "root:x:0:\nnogroup:x:65534:\n"),
		Text("etc/os-release", "ID=tiny\nPRETTY_NAME=\"Tiny\"\n"),
	}
}

// linkedFiles points most mount points of a container through links: into
// the image by absolute targets, in two hops, and upwards beyond the root.
func linkedFiles() []File {
	return []File{
		Symlink("bin", "/usr/bin"), Symlink("sbin", "usr/bin"),
		Dir("data"), Dir("data/real-home"), Dir("data/run"), Dir("data/tmp"), Dir("data/etc"),
		Dir("var"), Dir("proc"), Dir("sys"), Dir("dev"),
		Symlink("run", "/data/run"), Symlink("var/run", "/run"),
		Symlink("tmp", "../../data/tmp"), Symlink("var/tmp", "/tmp"),
		Symlink("home", "/data/home"), Symlink("data/home", "real-home"),
		Symlink("etc", "data/etc"), Symlink("data/etc/resolv.conf", "../run/resolvconf/resolv.conf"),
		Text("data/etc/passwd", "root:x:0:0:root:/root:/bin/sh\n"),
		Symlink("data/etc/group", "/data/etc/passwd.missing"),
		Symlink("opt", "/nowhere"), Symlink("mnt", "mnt"), // dangling; to itself
	}
}

// Tiny is a small image in memory: two layers, a configuration, text files
// and links. Nothing in it can be executed.
func Tiny() (v1.Image, error) {
	return FromFiles(config("/home", "sh", "TINY_IMAGE=1"), plainFiles(),
		[]File{Text("etc/motd", "tiny\n"), Symlink("home/motd", "../etc/motd"), Hardlink("etc/issue", "etc/motd")})
}
