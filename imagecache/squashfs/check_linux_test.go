package squashfs

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// readScript mounts each file in $1 and reads all that it has, as Linux sees
// it. It prints the names of those that give an error. The mounts end with the
// process: it has a mount namespace of its own.
const readScript = `
mkdir "$1/mnt"
for f in "$1"/*.sqfs; do
	if ! mount -t squashfs -o loop,ro "$f" "$1/mnt" 2>"$1/said"; then echo "$f: mount: $(cat "$1/said")"; continue; fi
	if ! { find "$1/mnt" -printf '%s %n %l\n' && find "$1/mnt" -type f -exec cat {} +; } >/dev/null 2>"$1/said"; then
		echo "$f: $(head -n 1 "$1/said")"
	fi
	umount "$1/mnt"
done`

// TestKernelReadsWhatCheckTakes changes good files at random, mostly by a bit,
// and lets Linux mount and read those that Check still takes. One bit may be
// right: a mode, a time, a letter.
func TestKernelReadsWhatCheckTakes(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root may mount")
	}
	tries, most := 30_000, 150
	if testing.Short() {
		tries, most = 3000, 30
	}
	dir := t.TempDir()
	taken := 0
	for name, good := range goodFiles(t) {
		sb := readSuperblock(good)
		r := rand.New(rand.NewPCG(1, uint64(len(name))))
		left := most
		for i := 0; i < tries && left > 0; i++ {
			bad := mutate(r, good, sb)
			err := Check(bytes.NewReader(bad), int64(len(bad)), CheckOptions{MaxInodes: 5000, Contents: true})
			if err != nil {
				if !errors.Is(err, ErrStructure) {
					t.Fatal(err)
				}
				continue
			}
			left--
			taken++
			if err := os.WriteFile(filepath.Join(dir, fmt.Sprintf("%s-%05d.sqfs", name, i)), bad, 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	out, err := exec.CommandContext(ctx, "unshare", "-m", "--propagation", "private", "sh", "-euc", readScript, "sh", dir).CombinedOutput()
	if err != nil || len(out) > 0 {
		t.Errorf("%v\n%.3000s", err, out)
	}
	t.Logf("%d changed files were taken and read", taken)
}

// goodFiles are small files of the Writer and of mksquashfs.
func goodFiles(t *testing.T) map[string][]byte {
	t.Helper()
	ours, err := os.ReadFile(write(t, 1, small(t)))
	if err != nil {
		t.Fatal(err)
	}
	files := map[string][]byte{"writer": ours}
	program, err := exec.LookPath("mksquashfs")
	if err != nil {
		t.Log(err)
		return files
	}
	tree, name := t.TempDir(), filepath.Join(t.TempDir(), "made")
	if out, err := exec.Command("unsquashfs", "-force", "-no-progress", "-d", tree, write(t, 1, small(t))).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	made := exec.Command(program, tree, name, "-comp", "zstd", "-Xcompression-level", "3", "-no-progress", "-quiet", "-no-xattrs")
	if out, err := made.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if files["mksquashfs"], err = os.ReadFile(name); err != nil {
		t.Fatal(err)
	}
	return files
}

// small is a tree with something of everything, and little of each.
func small(t testing.TB) func(w *Writer) *Inode {
	return func(w *Writer) *Inode {
		linked := &Inode{Kind: Regular, Mode: 0o644, File: add(t, w, words(1, 2*BlockSize+17))}
		hole := &Inode{Kind: Regular, Mode: 0o644, File: add(t, w, append(make([]byte, 2*BlockSize), "end"...))}
		noise := &Inode{Kind: Regular, Mode: 0o644, File: add(t, w, chacha(BlockSize+100))}
		var many []Entry
		for i := range 500 {
			n := &Inode{Kind: Symlink, Mode: 0o777, Target: "target"}
			if i%10 == 0 {
				n = &Inode{Kind: Regular, Mode: 0o444, MTime: uint32(i), File: add(t, w, words(uint64(i), i))}
			}
			many = append(many, Entry{fmt.Sprintf("name-of-file-%05d-%s", i, strings.Repeat("x", 20)), n})
		}
		return folder(
			Entry{"a", linked}, Entry{"b", folder(Entry{"again", linked}, Entry{"pipe", &Inode{Kind: Fifo, Mode: 0o600}})},
			Entry{"empty", folder()}, Entry{"hole", hole}, Entry{"link", &Inode{Kind: Symlink, Mode: 0o777, Target: "a"}},
			Entry{"many", folder(many...)}, Entry{"noise", noise}, Entry{"nothing", &Inode{Kind: Regular, Mode: 0o644}},
		)
	}
}

func chacha(n int) []byte {
	b := make([]byte, n)
	_, _ = rand.NewChaCha8([32]byte{1}).Read(b) // never fails
	return b
}

func readSuperblock(raw []byte) superblock {
	c := checker{r: bytes.NewReader(raw), size: uint64(len(raw)), limit: defaultMaxInodes}
	_ = c.superblock() // it is good
	return c.sb
}

// mutate returns good with a change: in the superblock, in the tables, or,
// seldom, in the data.
func mutate(r *rand.Rand, good []byte, sb superblock) []byte {
	bad := bytes.Clone(good)
	tables := int(sb.BytesUsed - sb.InodeTable)
	at := int(sb.InodeTable) + r.IntN(tables)
	switch r.IntN(10) {
	case 0:
		at = r.IntN(superblockSize)
	case 1:
		at = r.IntN(int(sb.BytesUsed))
	}
	switch r.IntN(4) {
	case 0:
		bad[at] = byte(r.Uint32())
	case 1: // copy a record of one place to another
		copy(bad[at:], good[int(sb.InodeTable)+r.IntN(tables):][:min(1+r.IntN(20), len(good)-int(sb.BytesUsed)+1)])
	default:
		bad[at] ^= 1 << r.IntN(8)
	}
	return bad
}
