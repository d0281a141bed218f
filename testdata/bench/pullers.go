package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// A puller is a way from a registry to something that can be run. Its script
// runs by sh -eu, as root, in an empty folder, which is its home: $REF is the
// image, $CA the authority of the registry.
type puller struct {
	name   string
	needs  []string // programs of the distribution
	ours   bool
	once   bool // slow, and far from any target: in the first round only
	script string
}

const (
	streams = "berth"
	unpacks = "berth, umoci"
	podman  = "podman pull"
)

// pullers are the ways that are compared. All end with one squashfs file but
// for podman, which ends with folders.
func pullers() []puller {
	return []puller{
		{name: streams, ours: true, script: asUser + `berth pull "$REF"`},
		{name: unpacks, ours: true, needs: []string{"mksquashfs"}, script: "export BERTH_STORE_CONVERTER=umoci; " + asUser + `berth pull "$REF"`},
		{
			name: podman, needs: []string{"podman"},
			script: `podman --root "$HOME/root" --runroot "$HOME/run" --storage-driver overlay pull -q --tls-verify=false "$REF"`,
		},
		{
			name: "ch-image, ch-convert", needs: []string{"ch-image", "ch-convert", "mksquashfs"}, once: true,
			script: `export CH_IMAGE_STORAGE="$HOME/ch" CH_IMAGE_CACHE=disabled REQUESTS_CA_BUNDLE="$CA"
				ch-image pull "$REF"
				ch-convert -i ch-image -o squash "$REF" "$HOME/image.sqfs"`,
		},
		{
			name: "skopeo, umoci, mksquashfs", needs: []string{"skopeo", "umoci", "mksquashfs"}, once: true,
			script: `skopeo copy -q --src-tls-verify=false "docker://$REF" "oci:$HOME/oci:x"
				umoci unpack --image "$HOME/oci:x" "$HOME/bundle"
				mksquashfs "$HOME/bundle/rootfs" "$HOME/image.sqfs" -comp zstd -Xcompression-level 3 -b 131072 -no-progress -quiet`,
		},
	}
}

// pullUser is an ordinary user without a name: root's settings are the site's
// alone.
const pullUser = 59871

const asUser = `HOME="$HOME/user" setpriv --reuid 59871 --regid 59871 --clear-groups `

// missing says which program of p is not there, or "".
func (p puller) missing() string {
	for _, name := range p.needs {
		if _, err := lookPath(name); err != nil {
			return fmt.Sprintf("%s is not installed (tools/deps bench)", name)
		}
	}
	return ""
}

// pullPath is where the scripts find programs: berth's, and the distribution's
// before anybody's own.
const pullPath = "/usr/sbin:/usr/bin:/sbin:/bin"

func lookPath(name string) (string, error) {
	for dir := range strings.SplitSeq(pullPath, ":") {
		if path, err := exec.LookPath(filepath.Join(dir, name)); err == nil {
			return path, nil
		}
	}
	return "", exec.ErrNotFound
}

// A pullSite is what pulls share: a registry, and folders.
type pullSite struct {
	registry string // HOST:PORT
	ca       string
	work     string // an empty folder on a disk, for one pull at a time
	bin      string // berth's programs
}

// onePull bounds a single pull.
const onePull = 12 * time.Minute

// accounting prints what the kernel has counted for the shell and all that it
// has waited for.
const accounting = `
while read -r line; do echo "$line"; done </proc/$$/io >"$HOME/io"`

// run pulls into an empty folder and measures it. CPU time, memory and bytes
// are those of the shell and of every process that it or its children waited
// for: the registry is not among them. The folder is there until the next run.
func (s pullSite) run(ctx context.Context, p puller, ref string) (Sample, error) {
	if err := s.clean(); err != nil {
		return Sample{}, err
	}
	sample := s.again(ctx, p, ref)
	written, err := writtenBytes(filepath.Join(s.work, "io"))
	if sample.Code == 0 {
		sample.Written = written
		return sample, err
	}
	return sample, nil
}

// again is run into the folder as it is.
func (s pullSite) again(ctx context.Context, p puller, ref string) Sample {
	ctx, cancel := context.WithTimeout(ctx, onePull)
	defer cancel()
	cmd := exec.CommandContext(ctx, "/bin/sh", "-euc", p.script+accounting)
	cmd.Dir = s.work
	cmd.Env = []string{
		"PATH=" + s.bin + ":" + pullPath, "HOME=" + s.work, "TMPDIR=" + s.work, "USER=root", "LC_ALL=C",
		"REF=" + s.registry + "/" + ref, "CA=" + s.ca,
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return unix.Kill(-cmd.Process.Pid, unix.SIGKILL) }
	sample := execute(cmd)
	if p := cmd.ProcessState; p != nil {
		sample.RSS = float64(p.SysUsage().(*syscall.Rusage).Maxrss) * 1024
	}
	return sample
}

// clean empties the folder, and has everything on the disk before the next
// pull: nobody pays for what another one wrote.
func (s pullSite) clean() error {
	user := filepath.Join(s.work, "user")
	err := errors.Join(os.RemoveAll(s.work), os.MkdirAll(filepath.Join(user, ".config/berth"), 0o755))
	settings := fmt.Sprintf("[registry.%q]\nca = %q\n", s.registry, s.ca)
	err = errors.Join(err, os.WriteFile(filepath.Join(user, ".config/berth/berth.toml"), []byte(settings), 0o644), os.Chown(user, pullUser, pullUser))
	unix.Sync()
	return err
}

// writtenBytes reads write_bytes of a copy of /proc/PID/io: the pages of files
// on disks that were made dirty, whether they got there or were removed before.
func writtenBytes(name string) (float64, error) {
	raw, err := os.ReadFile(name)
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(raw)) {
		if n, ok := strings.CutPrefix(strings.TrimSpace(line), "write_bytes: "); ok {
			return strconv.ParseFloat(n, 64)
		}
	}
	return 0, fmt.Errorf("%s has no write_bytes", name)
}
