package soak

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/berth-hpc/berth/imagecache/store"
	"github.com/berth-hpc/berth/testdata/deploy"
)

// A state is what a node without jobs has.
type state struct {
	processes []string // sorted
	mounts    []string
}

// invariants hold on every node when no job is left and all faults are over.
// Each returns what is wrong, a line each; nothing is fine. Those that wait
// for something to end are asked again for a while.
var invariants = []struct {
	name  string
	check func(s *soak, node string) []string
}{
	{"what is published is complete, verified, and its rights are right", (*soak).images},
	{"nothing of a job is left: no folder, lease, mount, pin, work folder or process of ours", (*soak).leftovers},
	{"no image has a loop device", (*soak).loops},
	{"no process and no mount is there that was not at the beginning", (*soak).changed},
	{"no container's folder is left on scratch", (*soak).scratch},
	{"only root looks into what is private", (*soak).private},
	{"no secret of a registry is on the node", (*soak).secrets},
	{"the node takes jobs", (*soak).drained},
}

// within is the path on this machine of one on a node's disk or in its memory.
func (s *soak) within(node, path string) string {
	return filepath.Join("/proc", s.PID(node), "root", path)
}

func (s *soak) state(node string) (now state) {
	for _, p := range s.Processes(node) {
		now.processes = append(now.processes, p.Name)
	}
	slices.Sort(now.processes)
	text, _ := os.ReadFile("/proc/" + s.PID(node) + "/mountinfo")
	for line := range strings.Lines(string(text)) {
		left, right, _ := strings.Cut(line, " - ")
		now.mounts = append(now.mounts, strings.Fields(left)[4]+" of "+strings.Fields(right)[0])
	}
	slices.Sort(now.mounts)
	return now
}

// remember notes how all is before the first round.
func (s *soak) remember() {
	for _, node := range Nodes {
		s.root(node, "berth gc")
		s.before[node] = s.state(node)
	}
	s.homes = s.homesNow()
}

// homesNow is all that users have at home but for what Berth keeps there for
// them, with its content.
func (s *soak) homesNow() string {
	return s.root("ctl", `cd /home && find . -path ./\*/.cache -prune -o -printf '%p %M %u %g %l %s\n' | sort; find . -path ./\*/.cache -prune -o -type f -print | sort | xargs -d '\n' sha256sum`)
}

// look mends what an admin has to, and checks all invariants.
func (s *soak) look(happened []Happened) {
	s.t.Helper()
	s.WaitIdle()
	for _, node := range Nodes {
		s.mend(node, happened)
		for _, invariant := range invariants {
			if wrong := s.settled(func() []string { return invariant.check(s, node) }); len(wrong) > 0 {
				s.t.Errorf("%s: not so: %s:\n%s\nfaults:\n%s", node, invariant.name, strings.Join(wrong, "\n"), list(happened))
			}
		}
	}
	if now := s.homesNow(); now != s.homes {
		s.t.Errorf("users' homes are not as they were:\n%s\nbefore:\n%s", now, s.homes)
	}
}

// settled asks until nothing is wrong, or it is for too long.
func (s *soak) settled(check func() []string) []string {
	deadline := time.Now().Add(15 * time.Second)
	for {
		wrong := check()
		if len(wrong) == 0 || time.Now().After(deadline) {
			return wrong
		}
		s.wait(200 * time.Millisecond)
	}
}

// mend does what is an admin's to do after some faults, and checks that it is
// no more than that.
func (s *soak) mend(node string, happened []Happened) {
	damaged, orphans, garbage := map[string]bool{}, false, false
	for _, h := range happened {
		k := h.kind()
		here := h.Node == "" || h.Node == node
		if here && k.OfImage {
			damaged[s.digests[h.Image]] = true
		}
		orphans, garbage = orphans || here && k.Orphans, garbage || here && k.Garbage
	}
	s.verify(node, damaged)
	left := s.settled(func() []string { return s.leftovers(node) })
	for _, line := range left {
		if kind, _, _ := strings.Cut(line, ":"); !orphans && !(garbage && (kind == "work folder" || kind == "half an image")) {
			s.t.Errorf("%s: left although nothing kept a cleanup from running: %s\nfaults:\n%s", node, line, list(happened))
		}
	}
	if len(left) > 0 {
		s.tally["mended by gc"]++
		s.root(node, "find /run/berth/jobs -exec touch -d '10 minutes ago' {} +; berth gc")
	}
}

// verify has berth verify find what was damaged, nothing else, and remove it.
func (s *soak) verify(node string, damaged map[string]bool) {
	for _, im := range s.published(node) {
		bad := len(s.image(node, im)) > 0
		if bad && !damaged[strings.Split(im, ".")[0]] {
			s.t.Errorf("%s: %s is damaged, and not by us: %v", node, im, s.image(node, im))
		}
		if bad {
			s.tally["damaged until verified"]++
		}
		r := s.Run(s.t.Context(), node, "root", "berth", "verify")
		if found := strings.Contains(r.Stdout, "damaged  sha256:"+strings.Split(im, ".")[0]); found != bad {
			s.t.Errorf("%s: %s: damaged %v, and berth verify says: %v", node, im, bad, r)
		}
	}
	s.root(node, "berth verify --remove")
}

// published are the names of a node's images.
func (s *soak) published(node string) (names []string) {
	entries, err := os.ReadDir(s.within(node, storeDir+"/images/sha256"))
	if err != nil {
		s.t.Error(err)
	}
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

func (s *soak) images(node string) (wrong []string) {
	for _, name := range s.published(node) {
		wrong = append(wrong, s.image(node, name)...)
	}
	return wrong
}

// image looks at one image, by nothing of Berth's but the format of a record.
func (s *soak) image(node, name string) (wrong []string) {
	dir := s.within(node, storeDir+"/images/sha256/"+name)
	mode := fs.FileMode(0o755)
	for key, image := range Images {
		if image.Owner != "" && strings.HasPrefix(name, s.digests[key]) {
			mode = 0o700
		}
	}
	wrong = append(wrong, rights(dir, fs.ModeDir|mode)...)
	for _, file := range []string{"rootfs.sqfs", "image.json", "record.json"} {
		wrong = append(wrong, rights(filepath.Join(dir, file), 0o444)...)
	}
	var record store.Record
	text, err := os.ReadFile(filepath.Join(dir, "record.json"))
	if err == nil {
		err = json.Unmarshal(text, &record)
	}
	if err != nil {
		return append(wrong, fmt.Sprintf("record.json of %s: %v", name, err))
	}
	f, err := os.Open(filepath.Join(dir, "rootfs.sqfs"))
	if err != nil {
		return append(wrong, err.Error())
	}
	defer f.Close()
	if sum, err := store.Hash(context.Background(), f); err != nil || sum != record.SHA256 {
		wrong = append(wrong, fmt.Sprintf("rootfs.sqfs of %s has SHA-256 %s, not %s: %v", name, sum, record.SHA256, err))
	}
	return wrong
}

// rights says what is wrong with a file that is to be root's.
func rights(path string, mode fs.FileMode) []string {
	info, err := os.Lstat(path)
	if err != nil {
		return []string{err.Error()}
	}
	if uid := info.Sys().(*syscall.Stat_t).Uid; info.Mode() != mode || uid != 0 {
		return []string{fmt.Sprintf("%s: %v of uid %d, not %v of root", path, info.Mode(), uid, mode)}
	}
	return nil
}

func (s *soak) leftovers(node string) []string {
	return slices.Collect(strings.Lines(deploy.Leftovers(s.t, s.Cluster, node)))
}

func (s *soak) loops(node string) []string {
	return deploy.LoopDevices(s.t, s.within(node, storeDir))
}

func (s *soak) changed(node string) (wrong []string) {
	now := s.state(node)
	return append(more("process", s.before[node].processes, now.processes), more("mount", s.before[node].mounts, now.mounts)...)
}

// more are what the second of two sorted lists has more, or less, of.
func more(what string, before, now []string) (wrong []string) {
	count := map[string]int{}
	for _, text := range now {
		count[text]++
	}
	for _, text := range before {
		count[text]--
	}
	for text, n := range count {
		if n != 0 {
			wrong = append(wrong, fmt.Sprintf("%s %s: %+d", what, text, n))
		}
	}
	return wrong
}

func (s *soak) scratch(node string) (wrong []string) {
	for _, dir := range []string{"/tmp", "/var/tmp", "/dev/shm"} {
		found, _ := filepath.Glob(s.within(node, dir) + "/.berth*")
		wrong = append(wrong, found...)
	}
	return wrong
}

func (s *soak) private(node string) (wrong []string) {
	for path, mode := range map[string]fs.FileMode{
		"/run/berth/private": 0o700, storeDir + "/grants": 0o700, storeDir + "/locks": 0o700, storeDir + "/images/.new": 0o700,
	} {
		path = s.within(node, path)
		if _, err := os.Lstat(path); os.IsNotExist(err) {
			continue // not since the boot
		}
		wrong = append(wrong, rights(path, fs.ModeDir|mode)...)
	}
	return wrong
}

// secrets looks for passwords and tokens in all that Berth and Slurm write.
func (s *soak) secrets(node string) (wrong []string) {
	var secrets [][]byte
	for user, password := range passwords {
		secrets = append(secrets, []byte(password), []byte(base64.StdEncoding.EncodeToString([]byte(user+":"+password))))
	}
	for _, token := range s.users.Issued() {
		secrets = append(secrets, []byte(token))
	}
	for _, dir := range []string{"/run", storeDir, "/var/log", "/var/spool", "/tmp", "/var/tmp", "/shared"} {
		_ = filepath.WalkDir(s.within(node, dir), func(path string, d fs.DirEntry, err error) error {
			if err != nil || !d.Type().IsRegular() || d.Name() == "rootfs.sqfs" {
				return nil // it may go meanwhile
			}
			text, _ := os.ReadFile(path)
			for _, secret := range secrets {
				if bytes.Contains(text, secret) {
					wrong = append(wrong, "in "+path)
				}
			}
			return nil
		})
	}
	return wrong
}

func (s *soak) drained(node string) []string {
	if now := s.NodeState(node); now != "idle" {
		return []string{now}
	}
	return nil
}

// planted are things that must not be, one for each invariant, in its order,
// and how they go again. Root's shell on a node does both.
var planted = []struct{ plant, undo string }{
	{"chmod 644 " + storeDir + "/images/sha256/*/image.json", "chmod 444 " + storeDir + "/images/sha256/*/image.json"},
	{"mkdir /run/berth/jobs/4242", "rmdir /run/berth/jobs/4242"},
	{"losetup -f --show " + storeDir + "/images/sha256/*/rootfs.sqfs >/run/planted", "losetup -d $(cat /run/planted); rm /run/planted"},
	{"mount -t tmpfs none /mnt", "umount /mnt"},
	{"mkdir /tmp/.berth-planted", "rmdir /tmp/.berth-planted"},
	{"chmod 755 /run/berth/private", "chmod 700 /run/berth/private"},
	{"echo al1ce-s3cret >/var/log/planted", "rm /var/log/planted"},
	{"scontrol update nodename=n3 state=drain reason=planted", "scontrol update nodename=n3 state=resume"},
}

// see asserts that no invariant is blind.
func (s *soak) see() {
	s.t.Helper()
	for i, invariant := range invariants {
		if wrong := s.settled(func() []string { return invariant.check(s, "n3") }); len(wrong) > 0 {
			s.t.Errorf("before all: not so: %s: %q", invariant.name, wrong)
		}
		s.root("n3", planted[i].plant)
		if wrong := invariant.check(s, "n3"); len(wrong) == 0 {
			s.t.Errorf("%s: it does not see: %s", invariant.name, planted[i].plant)
		}
		s.root("n3", planted[i].undo)
		if wrong := s.settled(func() []string { return invariant.check(s, "n3") }); len(wrong) > 0 {
			s.t.Errorf("after all: not so: %s: %q", invariant.name, wrong)
		}
	}
	s.MustRun(s.t.Context(), "n3", "bob", "chmod", "640", "/home/bob/note")
	if s.homesNow() == s.homes {
		s.t.Error("a change in a home is not seen")
	}
	s.MustRun(s.t.Context(), "n3", "bob", "chmod", "600", "/home/bob/note")
}
