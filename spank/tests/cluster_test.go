package tests

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/berth-hpc/berth/testdata/cluster"
)

// A testbed is a cluster with the plugin and stand-ins for what it starts.
type testbed struct {
	*cluster.Cluster
	t testing.TB
}

// plugstack is the line for the plugin where it is installed for the tests.
const plugstack = "/opt/fake/lib/spank_berth.so bindir=/opt/fake/bin prolog_wait=1000 "

// start brings a cluster up with one line of plugstack.conf.
func start(t *testing.T, o cluster.Options) *testbed {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("a cluster needs root")
	}
	needSlurmHeaders(t)
	o.Install = append(o.Install, fakeInstall(t)+":/opt/fake")
	return &testbed{cluster.Up(t, o), t}
}

// fakeInstall is a folder with the plugin, helper.c as berth-create, the
// script berth, and task prologs.
func fakeInstall(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	install := func(from, to string) {
		t.Helper()
		to = filepath.Join(dir, to)
		if out, err := exec.CommandContext(t.Context(), "install", "-D", "-m", "0755", from, to).CombinedOutput(); err != nil {
			t.Fatalf("install %s: %v\n%s", from, err, out)
		}
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	install(buildPlugin(t), "lib/spank_berth.so")
	install(compile(t, "berth-create", "-static", "testdata/helper.c", joinDir+"/wire.c"), "libexec/berth-create")
	install("testdata/berth", "bin/berth")
	install("testdata/task-prolog", "site-prolog")
	install("testdata/task-prolog", "user-prolog")
	return dir
}

func (b *testbed) with(t *testing.T) *testbed { return &testbed{b.With(t), t} }

// sh runs a line of shell as alice on the submit host, in /shared.
func (b *testbed) sh(script string, args ...any) cluster.Result {
	b.t.Helper()
	script = fmt.Sprintf(script, args...)
	return b.Run(b.t.Context(), "ctl", "alice", "bash", "-c", "cd /shared && "+script)
}

// shared reads a file of the folder that all machines share.
func (b *testbed) shared(name string) string {
	b.t.Helper()
	data, err := os.ReadFile(filepath.Join(b.Dir, "shared", name))
	if err != nil {
		b.t.Fatal(err)
	}
	return string(data)
}

// eventually polls until ok, for at most a minute.
func (b *testbed) eventually(what string, ok func() bool) {
	b.t.Helper()
	b.within(time.Minute, what, ok)
}

// within polls until ok.
func (b *testbed) within(limit time.Duration, what string, ok func() bool) {
	b.t.Helper()
	deadline := time.After(limit)
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-tick.C:
		case <-deadline:
			b.t.Fatalf("not after %v: %s", limit, what)
		}
	}
}

// job reads a field of scontrol's record of a job.
func (b *testbed) job(id, field string) string {
	b.t.Helper()
	out := b.MustRun(b.t.Context(), "ctl", "root", "scontrol", "-o", "show", "job", id)
	m := regexp.MustCompile(` ` + field + `=(\S*)`).FindStringSubmatch(out)
	if m == nil {
		b.t.Fatalf("no %s in %q", field, out)
	}
	return m[1]
}

// batch submits a script and waits for its end. It returns the job and what it
// printed.
func (b *testbed) batch(options, script string) (id, output string) {
	b.t.Helper()
	r := b.sh("sbatch --parsable %s -o /shared/out.%%j --wrap %s", options, quote(script))
	if r.Code != 0 {
		b.t.Fatalf("sbatch %s: %v", options, r)
	}
	id = strings.TrimSpace(r.Stdout)
	b.eventually("job "+id+" ended", func() bool {
		switch b.job(id, "JobState") {
		case "PENDING", "RUNNING", "COMPLETING", "CONFIGURING":
			return false
		}
		return true
	})
	return id, b.shared("out." + id)
}

func quote(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }

func expect(t *testing.T, got string, parts ...string) {
	t.Helper()
	for _, part := range parts {
		if !strings.Contains(got, part) {
			t.Errorf("no %q in\n%s", part, got)
		}
	}
}

func expectNot(t *testing.T, got string, parts ...string) {
	t.Helper()
	for _, part := range parts {
		if strings.Contains(got, part) {
			t.Errorf("%q in\n%s", part, got)
		}
	}
}

// TestPlugin runs the plugin in real srun, sbatch and slurmstepd over one
// cluster. Every test there ends with idle nodes.
func TestPlugin(t *testing.T) {
	t.Parallel()
	b := start(t, cluster.Options{
		Nodes: 2, JobContainer: true,
		Plugstack: []string{"required " + plugstack + "libexec=/opt/fake/libexec"},
		Conf:      []string{"TaskProlog=/opt/fake/site-prolog"},
	})
	for name, test := range map[string]func(*testing.T, *testbed){
		"Joins": testJoins, "Environment": testEnvironment, "TaskPrologs": testTaskPrologs,
		"WhatTheHelperGets": testWhatTheHelperGets, "MPI": testMPI, "Failures": testFailures,
		"BatchFailures": testBatchFailures, "Transport": testTransport, "Salloc": testSalloc,
		"Pin": testPin, "SubmitChecks": testSubmitChecks, "NoImage": testNoImage,
		"Prolog": testProlog, "Scancel": testScancel,
	} {
		t.Run(name, func(t *testing.T) {
			test(t, b.with(t))
			b.with(t).WaitIdle()
		})
	}
}

// lines counts the lines of text that are line.
func lines(text, line string) int {
	n := 0
	for l := range strings.Lines(text) {
		if strings.TrimSuffix(l, "\n") == line {
			n++
		}
	}
	return n
}

func testJoins(t *testing.T, b *testbed) {
	r := b.sh("srun -N2 -n4 --container-image=fine sh -c 'pwd; only-inside -u; grep CapEff /proc/self/status; echo fds $(ls /proc/self/fd | wc -l); stat -c owner-%%u /proc/$$/stat'")
	if r.Code != 0 {
		t.Fatal(r)
	}
	for _, want := range []string{"/mnt", "2001", "CapEff:\t0000000000000000", "fds 4", "owner-2001"} {
		if n := lines(r.Stdout, want); n != 4 {
			t.Errorf("%q %d times, want 4:\n%s", want, n, r.Stdout)
		}
	}
	if n := strings.Count(r.Stderr, "berth: a note from the fake"); n != 2 {
		t.Errorf("note printed %d times, want once per node:\n%s", n, r.Stderr)
	}
	if r := b.sh("srun --container-image=fine only-inside -u"); r.Stdout != "2001\n" {
		t.Errorf("a command of the image's PATH: %v", r)
	}
	if r := b.sh("srun --container-image=fine sh -c 'exit 7'"); r.Code != 7 {
		t.Errorf("exit code of the command: %v", r)
	}
	if r := b.sh("srun --container-image=fine no-such-command"); r.Code == 0 {
		t.Errorf("a command that the image lacks: %v", r)
	}
}

func testEnvironment(t *testing.T, b *testbed) {
	r := b.sh("KEPT=host LANG=host srun --container-image=fine --container-env=KEPT env")
	expect(t, r.Stdout, "FROM_IMAGE=yes\n", "KEPT=host\n", "PATH=/mnt/bin:/usr/bin:/bin\n")
	expectNot(t, r.Stdout, "LANG=host")
	r = b.sh("LC_ALL=C.UTF-8 srun --container-image=fine --container-env=KEPT,LC_ALL env")
	expect(t, r.Stdout, "KEPT=image\n", "LC_ALL=C.UTF-8\n")
}

func testTaskPrologs(t *testing.T, b *testbed) {
	r := b.sh("srun --container-image=fine --task-prolog=/opt/fake/user-prolog env")
	expect(t, r.Stdout, "SITE_PROLOG_SAW=bin\n", "USER_PROLOG_SAW=bin\n")
	expect(t, b.lastHelper(), "task prolog_file=/opt/fake/site-prolog\n", "task prolog_file=/opt/fake/user-prolog\n")
}

// lastHelper is what the stand-in for berth-create noted last.
func (b *testbed) lastHelper() string {
	b.t.Helper()
	r := b.Run(b.t.Context(), "ctl", "root", "bash", "-c", "cat \"$(ls -t /shared/helper.* | head -n1)\"")
	return r.Stdout
}

func testWhatTheHelperGets(t *testing.T, b *testbed) {
	r := b.sh("TMPDIR=/tmp/mine srun -N1 -n2 --container-image=fine --container-mounts=/a:/b,/c --container-mounts=/c,tmpfs:/t " +
		"--container-workdir='/w x' --no-container-mount-home --container-writable --container-env=A,B true")
	if r.Code != 0 {
		t.Fatal(r)
	}
	expect(t, b.lastHelper(),
		"sender uid=0\n", "request uid=2001\n", "request gid=2001\n", "request groups=2001,3001,3002\n",
		"request tasks=2\n", "request node=0\n", "request nodes=1\n", "request image=fine\n",
		"request digest=sha256:", "request mounts=/a:/b,/c,tmpfs:/t\n", "request workdir=/w x\n",
		"request home=0\n", "request root=writable\n", "request env=A\nrequest env=B\n",
		"self command=step uid=0 euid=0 session=1 inherited=0 oom=0 PATH=/usr/sbin:/usr/bin:/sbin:/bin\n",
		"offer task=0 fds=2 uid=0\n", "offer task=1 fds=1 uid=0\n",
		"task cwd=/shared\n", "task tmpdir=/tmp/mine\n", "task home=/home/alice\n")
	_, out := b.batch("--container-image=fine", `pwd; cat "$0" | wc -c`)
	expect(t, out, "/mnt\n")
	expect(t, b.lastHelper(), "task spool=/var/spool/slurmd/job", "request nodes=1\n")
}

func testMPI(t *testing.T, b *testbed) {
	r := b.sh(`srun -N2 --mpi=pmix --container-image=fine sh -c 'ls -d "$PMIX_SERVER_TMPDIR"'`)
	if r.Code != 0 {
		t.Fatal(r)
	}
	expect(t, b.lastHelper(), "task pmix="+strings.Split(r.Stdout, "\n")[0]+"\n")
	r = b.sh(`srun --mpi=pmi2 --container-image=fine sh -c 'ls -l /proc/self/fd/$PMI_FD'`)
	expect(t, r.Stdout, "socket:")
}

// failures are the ways in which a container does not come to be.
var failures = []struct{ image, cause, remedy string }{
	{"error", "the fake has no such image", "ask for another one"},
	{"die-after-request", "the container helper ended", "submit the job again"},
	{"error-early", "the fake has no such image", "ask for another one"},
	{"error-unheard", "the fake has no such image", "ask for another one"},
	{"die-after-task", "the container helper ended", "submit the job again"},
	{"die-while-waiting", "the container helper ended", "submit the job again"},
	{"garbage", "an answer that makes no sense", "this is for the cluster's admin"},
	{"no-fds", "sent 0 descriptors", "this is for the cluster's admin"},
	{"bad-cwd", "cannot enter the working directory /no/such/folder", "name a folder that the container has with --container-workdir"},
}

func testFailures(t *testing.T, b *testbed) {
	for _, f := range failures {
		r := b.sh("srun -N2 -n4 --container-image=%s sh -c 'echo it ran'", f.image)
		if r.Code != 1 || r.Stdout != "" {
			t.Errorf("%s: %v", f.image, r)
		}
		if n := strings.Count(r.Stderr, "berth: error: "); n != 2 {
			t.Errorf("%s: %d errors, want one per node:\n%s", f.image, n, r.Stderr)
		}
		expect(t, r.Stderr, f.cause, "berth:   "+f.remedy)
	}
	mark := filepath.Join(b.Dir, "shared", "die-at-start")
	if err := os.WriteFile(mark, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	defer os.Remove(mark)
	r := b.sh("srun -N2 -n4 --container-image=fine sh -c 'echo it ran'")
	if r.Code != 1 || r.Stdout != "" || strings.Count(r.Stderr, "berth: error: ") != 2 {
		t.Errorf("die-at-start: %v", r)
	}
}

func testBatchFailures(t *testing.T, b *testbed) {
	for _, f := range failures {
		id, out := b.batch("--container-image="+f.image, "echo it ran")
		expect(t, out, "berth: error: ", f.cause, f.remedy)
		expectNot(t, out, "it ran")
		if state, code := b.job(id, "JobState"), b.job(id, "ExitCode"); state != "FAILED" || code != "1:0" {
			t.Errorf("%s: %s %s, want FAILED 1:0", f.image, state, code)
		}
	}
}

// stepScript prints the requests of a nested step with each of several
// options, one block per step.
const stepScript = `
show() { grep -hE "^request (image|digest|mounts|root|env)" /shared/helper.$SLURM_JOB_ID.$1.0; echo ---; }
export PATH=/opt/fake/bin:$PATH
srun true; show 0
srun --container-image=other --container-mounts=/s --container-readonly true; show 1
show 4294967291`

func withoutNotes(s string) string {
	return strings.ReplaceAll(s, "berth: a note from the fake\n", "")
}

func testTransport(t *testing.T, b *testbed) {
	const pin = "request digest=sha256:0000000000000000000000000000000000000000000000000000000000000007\n"
	job := "request image=fine\n" + pin + "request mounts=/a:/b,/c\nrequest root=writable\nrequest env=A\nrequest env=B\n"
	step := "request image=other\n" + pin + "request mounts=/s\nrequest root=readonly\nrequest env=A\nrequest env=B\n"
	want := job + "---\n" + step + "---\n" + job + "---\n"
	options := "--container-image=fine --container-mounts=/a:/b --container-mounts=/c --container-writable --container-env=A --container-env=B"
	for _, export := range []string{"", "--export=NONE", "--export=HOME"} {
		if _, out := b.batch(export+" "+options, stepScript); withoutNotes(out) != want {
			t.Errorf("sbatch %s: got\n%s\nwant\n%s", export, out, want)
		}
	}
	form := "BERTH_CONTAINER_IMAGE=fine PYXIS_CONTAINER_MOUNTS=/a:/b,/c PYXIS_CONTAINER_WRITABLE=1 BERTH_CONTAINER_ENV=A,B "
	for _, export := range []string{"ALL", "NONE"} {
		r := b.sh("%s sbatch --wait -Q --export=%s -o out.form --wrap %s; cat out.form", form, export, quote(stepScript))
		if withoutNotes(r.Stdout) != want {
			t.Errorf("environment forms, --export=%s: got\n%s\nwant\n%s", export, r.Stdout, want)
		}
	}
	r := b.sh(`printf 'PATH=/usr/bin:/bin\0' >file.env; sbatch --wait -Q --export-file=/shared/file.env %s -o out.file --wrap %s; cat out.file`,
		options, quote(stepScript))
	if withoutNotes(r.Stdout) != want {
		t.Errorf("sbatch --export-file: got\n%s\nwant\n%s", r.Stdout, want)
	}
	r = b.sh(`printf '#!/bin/bash\n#SBATCH --container-image=error\npwd\n' >script; sbatch --wait -Q --container-image=fine -o out.line script && cat out.line`)
	expect(t, r.Stdout, "/mnt\n") // the command line replaces the script's line
}

func testSalloc(t *testing.T, b *testbed) {
	r := b.sh("salloc -Q -N1 --container-image=fine --container-writable bash -c 'srun pwd; srun --container-image=error true; srun --container-readonly true; echo $?'")
	expect(t, r.Stdout, "/mnt\n", "0\n")
	expect(t, r.Stderr, "the fake has no such image")
	expect(t, b.lastHelper(), "request image=fine\n", "request root=readonly\n")
}

// resolved counts the calls of `berth resolve` by alice so far.
func (b *testbed) resolved() int {
	b.t.Helper()
	r := b.Run(b.t.Context(), "ctl", "root", "bash", "-c", "grep -c '^resolve uid=2001' /shared/berth.2001.log")
	n, err := strconv.Atoi(strings.TrimSpace(r.Stdout))
	if err != nil {
		return 0
	}
	return n
}

func testPin(t *testing.T, b *testbed) {
	r := b.sh("srun --container-image=down/x pwd")
	if r.Code != 0 || r.Stdout != "/mnt\n" {
		t.Errorf("registry down: %v", r)
	}
	expect(t, r.Stderr, "no answer from the registry down", "down/x is not pinned")
	expectNot(t, b.lastHelper(), "request digest")

	if r = b.sh("sbatch --container-image=wrong/x --wrap true"); r.Code == 0 || r.Stdout != "" {
		t.Errorf("no such image: %v", r)
	}
	expect(t, r.Stderr, "no image of that name")

	begin := time.Now()
	r = b.sh("srun --container-image=slow/x pwd")
	if took := time.Since(begin); r.Code != 0 || took > 15*time.Second {
		t.Errorf("slow registry: after %v %v", took, r)
	}
	expect(t, r.Stderr, "slow/x is not pinned")

	before := b.resolved()
	b.sh("srun --container-image=/a/path true")
	if n := b.resolved(); n != before {
		t.Errorf("a path was resolved")
	}
	b.batch("--container-image=fine", "srun true; srun --container-image=fine true; srun --container-image=other true")
	if n := b.resolved(); n != before+2 {
		t.Errorf("%d calls of berth resolve, want 2: for the job, and for the step with another image", n-before)
	}
	before = b.resolved()
	b.batch("--container-image=down/x", "srun true")
	if n := b.resolved(); n != before+1 {
		t.Errorf("%d calls of berth resolve, want 1: a step of an unpinned job does not try again", n-before)
	}
}

func testSubmitChecks(t *testing.T, b *testbed) {
	for _, test := range []struct{ options, want string }{
		{"--container-image=", "is empty"},
		{"--container-image='a b'", "no spaces"},
		{"--container-image=x.sqsh", "did you mean ./x.sqsh"},
		{"--container-image=a --container-image=b", "given twice"},
		{"--container-image=a --container-mounts=home:/home", "begins with . or /"},
		{"--container-image=a --container-mounts=/a:b:ro", "target begins with /"},
		{"--container-image=a --container-env=A,,B", "a name is empty"},
		{"--container-image=a --container-workdir=", "path is empty"},
		{"--container-image=a --container-readonly --container-writable", "contradict"},
		{"--container-image=a --container-mount-home --no-container-mount-home", "contradict"},
	} {
		for _, command := range []string{"srun %s true", "sbatch %s --wrap true", "salloc %s true"} {
			r := b.sh(command, test.options)
			if r.Code == 0 {
				t.Errorf("%s %s: %v", command, test.options, r)
			}
			expect(t, r.Stderr, test.want)
		}
	}
	r := b.sh("PYXIS_CONTAINER_READONLY=maybe srun --container-image=a true")
	if r.Code == 0 {
		t.Errorf("bad environment: %v", r)
	}
	expect(t, r.Stderr, "PYXIS_CONTAINER_READONLY=maybe")
	r = b.sh("squeue -h -u alice")
	if r.Stdout != "" {
		t.Errorf("jobs were submitted: %s", r.Stdout)
	}
	r = b.sh("srun --help")
	expect(t, r.Stdout, "--container-image=REF|PATH", "--no-container-mount-home")
}

func testNoImage(t *testing.T, b *testbed) {
	r := b.sh("srun --container-mounts=/a --container-readonly pwd")
	if r.Code != 0 || r.Stdout != "/shared\n" {
		t.Errorf("options without an image: %v", r)
	}
	if n := strings.Count(r.Stderr, "berth: no --container-image"); n != 1 {
		t.Errorf("%d lines that options are ignored:\n%s", n, r.Stderr)
	}
	r = b.sh("PYXIS_CONTAINER_MOUNTS=/a srun sh -c 'exit 3'")
	if r.Code != 3 || strings.Contains(r.Stderr, "berth:") {
		t.Errorf("a bare job: %v", r)
	}
}

func testProlog(t *testing.T, b *testbed) {
	id, _ := b.batch("-N2 --container-image=fine", "true")
	b.eventually("cleanup on both nodes", func() bool {
		return strings.Count(b.shared("berth.0.log"), "cleanup uid=0 euid=0 PATH=/usr/sbin:/usr/bin:/sbin:/bin LANG=C job="+id+" ") == 2
	})
	line := "prepare uid=0 euid=0 PATH=/usr/sbin:/usr/bin:/sbin:/bin LANG=C job=" + id +
		" uid=2001 gid=2001 partition=main image=fine digest=sha256:0000000000000000000000000000000000000000000000000000000000000007 wait=1000 \n"
	if n := strings.Count(b.shared("berth.0.log"), line); n == 0 {
		t.Errorf("no %q in\n%s", line, b.shared("berth.0.log"))
	}
	for _, image := range []string{"slow-prepare", "failing-prepare"} {
		begin := time.Now()
		r := b.sh("srun --container-image=%s pwd", image)
		if took := time.Since(begin); r.Stdout != "/mnt\n" || took > 20*time.Second {
			t.Errorf("%s: after %v %v", image, took, r)
		}
	}
	expect(t, b.Logs(), "node prepare did not end within 3000 ms", "node prepare failed")
}

// hanging submits a job whose helper hangs, and returns when its task waits.
func (b *testbed) hanging(options string) (id string) {
	b.t.Helper()
	r := b.sh("sbatch --parsable %s --container-image=hang -o /shared/out.%%j --wrap 'echo it ran'", options)
	if r.Code != 0 {
		b.t.Fatal(r)
	}
	id = strings.TrimSpace(r.Stdout)
	b.eventually("the task of "+id+" waits", func() bool {
		data, err := os.ReadFile(filepath.Join(b.Dir, "shared", "helper."+id+".4294967291.0"))
		return err == nil && strings.Contains(string(data), "task cwd=")
	})
	return id
}

func (b *testbed) expectEnd(limit time.Duration, id, state string) {
	b.t.Helper()
	b.within(limit, "job "+id+" is "+state, func() bool { return b.job(id, "JobState") == state })
	if code := b.job(id, "ExitCode"); code == "0:0" {
		b.t.Errorf("job %s: exit code %s", id, code)
	}
	expectNot(b.t.(*testing.T), b.shared("out."+id), "it ran")
}

func testScancel(t *testing.T, b *testbed) {
	id := b.hanging("")
	begin := time.Now()
	b.sh("scancel %s", id)
	b.WaitIdle()
	if took := time.Since(begin); took > 10*time.Second {
		t.Errorf("scancel took %v", took)
	}
	b.expectEnd(time.Minute, id, "CANCELLED")
}

// TestTimeLimit: a wait ends with the job's time limit, which is at least a
// minute and looked at every half minute.
func TestTimeLimit(t *testing.T) {
	if testing.Short() {
		t.Skip("takes two minutes")
	}
	t.Parallel()
	b := start(t, cluster.Options{
		Nodes:     1,
		Plugstack: []string{"required " + plugstack + "libexec=/opt/fake/libexec"},
	})
	id := b.hanging("-t 1")
	b.expectEnd(3*time.Minute, id, "TIMEOUT")
	b.WaitIdle()
}

// TestHelperMissing: under `optional` Slurm ignores what hooks return, and yet
// nothing may run on the host.
func TestHelperMissing(t *testing.T) {
	t.Parallel()
	b := start(t, cluster.Options{
		Nodes:     1,
		Plugstack: []string{"optional " + plugstack + "libexec=/no/such/folder"},
	})
	r := b.sh("srun -n2 --container-image=fine sh -c 'echo it ran'")
	if r.Code != 1 || r.Stdout != "" || strings.Count(r.Stderr, "berth: error: ") != 1 {
		t.Error(r)
	}
	expect(t, r.Stderr, "cannot start /no/such/folder/berth-create: No such file or directory")
	if r := b.sh("sbatch --container-image=x.sqsh --wrap true"); r.Code == 0 || r.Stdout != "" {
		t.Errorf("submitted under optional: %v", r)
	}
	if r := b.sh("srun pwd"); r.Stdout != "/shared\n" {
		t.Errorf("a bare job: %v", r)
	}
	b.WaitIdle()
}

// TestBadArgument: an unknown argument in plugstack.conf is said at submit.
func TestBadArgument(t *testing.T) {
	t.Parallel()
	b := start(t, cluster.Options{Nodes: 1, Plugstack: []string{"optional " + plugstack + "colour=red"}})
	r := b.sh("srun --container-image=fine sh -c 'echo it ran'")
	if r.Code == 0 || r.Stdout != "" {
		t.Error(r)
	}
	expect(t, r.Stderr, `unknown argument "colour=red"`)
	expect(t, b.Logs(), `unknown argument "colour=red"`)
	if r := b.sh("srun pwd"); r.Stdout != "/shared\n" {
		t.Errorf("a bare job under optional: %v", r)
	}
	b.WaitIdle()
}
