package records

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/berth-hpc/berth/prolog/jobstate"
)

func step(name string) *Record {
	return &Record{Job: "12", Step: name, UID: 2001, Asked: "x:1", Time: time.Unix(1e9, 0).UTC()}
}

func steps(all []Record) (names string) {
	for _, r := range all {
		names += r.Step + " "
	}
	return strings.TrimSpace(names)
}

func appendAll(t *testing.T, dir string, all ...*Record) {
	t.Helper()
	for _, r := range all {
		if err := Append(dir, r); err != nil {
			t.Fatal(err)
		}
	}
}

func TestAppendAndRead(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "records")
	appendAll(t, dir, step("0"))
	// A process was killed while it wrote.
	f, err := os.OpenFile(path(dir, "12", 2001, current), os.O_APPEND|os.O_WRONLY, 0)
	if err == nil {
		_, err = f.WriteString("\n{\"job\":\"12\",\"st")
		f.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
	other := step("5") // the number came again, as another user's
	other.UID = 2002
	part := step("0")
	part.Job = "4711[3].server"
	appendAll(t, dir, step("1"), other, part)
	if all, err := Read(dir, "12", 2001); err != nil || steps(all) != "0 1" {
		t.Errorf("%q, %v", steps(all), err)
	}
	if all, err := ReadAll(dir, "12"); err != nil || steps(all) != "0 1 5" {
		t.Errorf("%q, %v", steps(all), err)
	}
	if all, err := ReadAll(dir, part.Job); err != nil || steps(all) != "0" {
		t.Errorf("%q, %v", steps(all), err)
	}
	if _, err := Read(dir, "13", 2001); !errors.Is(err, fs.ErrNotExist) {
		t.Error(err)
	}
}

// Its user can read a job's record, nobody else can, and only root can write.
func TestRecordIsItsUsers(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root")
	}
	top := t.TempDir()
	for d := top; d != filepath.Dir(os.TempDir()) && d != "/"; d = filepath.Dir(d) {
		if d != os.TempDir() {
			if err := os.Chmod(d, 0o755); err != nil {
				t.Fatal(err)
			}
		}
	}
	dir := filepath.Join(top, "records")
	old := syscall.Umask(0)
	t.Cleanup(func() { syscall.Umask(old) })
	appendAll(t, dir, step("0"))
	name := path(dir, "12", 2001, current)
	as := func(uid uint32, script string) error {
		cmd := exec.Command("sh", "-c", script, "sh", name, filepath.Dir(name))
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: 2001}}
		return cmd.Run()
	}
	if err := as(2001, `cat "$1"`); err != nil {
		t.Errorf("the user: %v", err)
	}
	for _, tc := range []struct {
		name, script string
		uid          uint32
	}{
		{"another user of the group", `cat "$1"`, 2002},
		{"the user writes", `echo x >>"$1"`, 2001},
		{"the user gives others the right", `chmod 644 "$1"`, 2001},
		{"the user lists everybody's", `ls "$2"`, 2001},
		{"the user makes files", `echo x >"$2/y"`, 2001},
		{"the user removes it", `rm -f "$1"`, 2001},
	} {
		if as(tc.uid, tc.script) == nil {
			t.Errorf("%s", tc.name)
		}
	}
}

// However long the lists of a user are, a line is bounded, and says that
// something is missing.
func TestHugeRecord(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "records")
	r := step("0")
	for range 10000 {
		r.Wanted.Mounts = append(r.Wanted.Mounts, strings.Repeat("m", 100))
	}
	r.Wanted.Workdir = strings.Repeat("w", 1<<20)
	r.Said = &Said{Mounts: r.Wanted.Mounts}
	appendAll(t, dir, r)
	st, err := os.Stat(path(dir, "12", 2001, current))
	if err != nil || st.Size() > maxLine {
		t.Errorf("%v, %v", st.Size(), err)
	}
	if all, err := Read(dir, "12", 2001); err != nil || len(all) != 1 || !all[0].Cut || all[0].Asked != "x:1" {
		t.Errorf("%+v, %v", all, err)
	}
	r = step("1")
	r.Asked = strings.Repeat("x", maxLine)
	if Append(dir, r) == nil {
		t.Error("a line without bounds")
	}
}

// A job of very many steps keeps its last ones.
func TestManySteps(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "records")
	filler := strings.Repeat("f", 60<<10)
	for i := range 60 {
		r := step(fmt.Sprint(i))
		r.Wanted.Workdir = filler
		appendAll(t, dir, r)
	}
	all, err := Read(dir, "12", 2001)
	if err != nil || len(all) < 17 || len(all) > 40 || all[len(all)-1].Step != "59" {
		t.Errorf("%d: %q, %v", len(all), steps(all), err)
	}
}

// What is too old, or too much, goes; what is newest stays.
func TestPrune(t *testing.T) {
	for _, tc := range []struct {
		name   string
		limits Limits
		want   int
	}{
		{"no limits", Limits{}, 10},
		{"age", Limits{Keep: 5*time.Hour + time.Minute}, 6},
		{"number", Limits{Jobs: 3}, 3},
		{"size", Limits{Bytes: 1}, 0},
	} {
		t.Run(tc.name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "records")
			now := time.Now()
			for i := range 10 {
				r := step("0")
				r.Job = jobstate.JobID(fmt.Sprint(100 + i))
				appendAll(t, dir, r)
				at := now.Add(-time.Duration(i) * time.Hour)
				if err := os.Chtimes(path(dir, r.Job, 2001, current), at, at); err != nil {
					t.Fatal(err)
				}
			}
			if err := Prune(dir, tc.limits); err != nil {
				t.Fatal(err)
			}
			left, err := list(dir)
			if err != nil || len(left) != tc.want || tc.want > 0 && left[0].job != "100" {
				t.Errorf("%d left, want %d: %v", len(left), tc.want, err)
			}
		})
	}
	// It looks again only after a while.
	dir := filepath.Join(t.TempDir(), "records")
	appendAll(t, dir, step("0"))
	if err := errors.Join(Prune(dir, Limits{}), Prune(dir, Limits{Bytes: 1})); err != nil {
		t.Fatal(err)
	}
	if left, _ := list(dir); len(left) != 1 {
		t.Error("it looks after every job")
	}
}
