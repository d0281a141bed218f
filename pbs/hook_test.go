package pbs

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/berth-hpc/berth/launcher/wire"
)

// A host is a machine with the hook and stand-ins for Berth's programs, which
// record how they were started.
type host struct {
	t                   *testing.T
	python, dir, prefix string
	runDir              string
	config              map[string]any
}

// pythons are the interpreters that the hook has to run on: this machine's, and
// RHEL 8's where it is to be had.
func pythons() []string {
	found := []string{"python3"}
	for _, path := range []string{"/usr/libexec/platform-python", "/usr/bin/python3.6", os.Getenv("BERTH_TEST_PYTHON36")} {
		if _, err := os.Stat(path); err == nil {
			found = append(found, path)
		}
	}
	return found
}

// onEach runs a test with each interpreter.
func onEach(t *testing.T, test func(t *testing.T, h *host)) {
	for _, python := range pythons() {
		t.Run(filepath.Base(python), func(t *testing.T) {
			if _, err := exec.LookPath(python); err != nil {
				t.Skipf("no %s: %v", python, err)
			}
			test(t, newHost(t, python))
		})
	}
}

// recorder is a program that writes down how it was started, and then acts.
const recorder = `#!/bin/sh
{ env | grep -v -e '^PWD=' -e '^SHLVL=' -e '^_=' -e '^OLDPWD=' | sort | sed 's/^/env /'; for a in "$0" "$@"; do printf 'arg %%s\n' "$a"; done; echo "cwd $(pwd)"; } >%[1]s/call.tmp
cat >%[1]s/input
mv %[1]s/call.tmp %[1]s/call
%[2]s
`

func newHost(t *testing.T, python string) *host {
	h := &host{t: t, python: python, dir: t.TempDir()}
	h.prefix, h.runDir = filepath.Join(h.dir, "prefix"), filepath.Join(h.dir, "run")
	h.config = map[string]any{"prefix": h.prefix, "run_dir": h.runDir, "account": ""}
	h.program("bin/berth", "echo sha256:"+strings.Repeat("a", 64))
	h.program("libexec/berth/berth-create", "echo recorded")
	return h
}

func (h *host) program(name, act string) {
	path := filepath.Join(h.prefix, name)
	must(h.t, os.MkdirAll(filepath.Dir(path), 0o755))
	must(h.t, os.WriteFile(path, fmt.Appendf(nil, recorder, h.dir, act), 0o755))
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// An outcome is what PBS sees of a hook.
type outcome struct {
	result, message, progname string
	resources                 map[string]string
	argv                      []string
	log, output               string
	took                      time.Duration
}

// with is the same host for a subtest.
func (h *host) with(t *testing.T) *host {
	other := *h
	other.t = t
	return &other
}

// submission is an event in the server.
type submission struct {
	Event      string            `json:"event"`
	Attributes map[string]string `json:"attributes"`
	Resources  map[string]string `json:"resources"`
	Variables  map[string]string `json:"variables"`
}

func (h *host) submit(s submission) outcome {
	h.t.Helper()
	data, err := json.Marshal(s)
	must(h.t, err)
	return h.run(data)
}

// event is one on a node, as lines.
func (h *host) event(lines ...string) outcome {
	h.t.Helper()
	return h.run([]byte(strings.Join(lines, "\n") + "\n"))
}

func (h *host) file(name string) string { return filepath.Join(h.dir, name) }

func (h *host) run(input []byte) outcome {
	h.t.Helper()
	for _, name := range []string{"call", "input", "log", "out"} {
		_ = os.Remove(h.file(name))
	}
	config, err := json.Marshal(h.config)
	must(h.t, err)
	must(h.t, os.WriteFile(h.file("config"), config, 0o644))
	must(h.t, os.WriteFile(h.file("in"), input, 0o600))
	must(h.t, os.WriteFile(h.file("resources"), []byte("container_image container_mounts container_workdir container_env container_mode ncpus"), 0o644))
	cmd := exec.Command(h.python, "../testdata/pbs/python/run_hook.py", "--hook", "-i", h.file("in"), "-o", h.file("out"),
		"-L", h.file("log"), "-e", "4095", "-c", h.file("config"), "-r", h.file("resources"), "berth_hook.py")
	cmd.Env = []string{"PATH=/bin:/usr/bin:" + filepath.Dir(h.python), "LD_PRELOAD_OF_PBS=x", "HOME=/root", "PYTHONDONTWRITEBYTECODE=1"}
	if h.python == "python3" {
		cmd.Env[0] = "PATH=" + os.Getenv("PATH")
	}
	began := time.Now()
	output, err := cmd.CombinedOutput()
	if err != nil {
		h.t.Fatalf("%v: %s", err, output)
	}
	o := outcome{output: string(output), resources: map[string]string{}, took: time.Since(began)}
	out, err := os.ReadFile(h.file("out"))
	must(h.t, err)
	for line := range strings.Lines(string(out)) {
		o.take(strings.TrimSuffix(line, "\n"))
	}
	log, _ := os.ReadFile(h.file("log"))
	o.log = string(log)
	return o
}

func (o *outcome) take(line string) {
	name, value, _ := strings.Cut(strings.TrimPrefix(line, "pbs.event()."), "=")
	switch resource, ok := strings.CutPrefix(name, "job.Resource_List["); {
	case ok:
		o.resources[strings.TrimSuffix(resource, "]")] = value
	case name == "result":
		o.result = value
	case name == "message":
		o.message = value
	case name == "progname":
		o.progname = value
	case strings.HasPrefix(name, "argv["):
		o.argv = append(o.argv, value)
	}
}

// call is how a recorder was started, and what it was given.
func (h *host) call() (call string, input []byte) {
	data, _ := os.ReadFile(h.file("call"))
	input, _ = os.ReadFile(h.file("input"))
	return string(data), input
}

// table reads a table of "verdict value" lines.
func table(t *testing.T, path string) (verdicts, values []string) {
	t.Helper()
	data, err := os.ReadFile(path)
	must(t, err)
	for line := range strings.Lines(string(data)) {
		if verdict, value, ok := strings.Cut(strings.TrimSuffix(line, "\n"), " "); ok && verdict != "#" {
			verdicts, values = append(verdicts, verdict), append(values, value)
		}
	}
	if len(values) < 20 {
		t.Fatalf("%s: %d lines", path, len(values))
	}
	return verdicts, values
}

// TestTables: what is refused at submission is what the other programs refuse.
func TestTables(t *testing.T) {
	onEach(t, func(t *testing.T, h *host) {
		verdicts, values := table(t, "../spank/tests/testdata/references.txt")
		for i, value := range values {
			o := h.submit(submission{Event: "queuejob", Resources: map[string]string{"container_image": value}})
			want := "reject"
			if verdicts[i] == "path" || verdicts[i] == "registry" {
				want = "accept"
			}
			if o.result != want {
				t.Errorf("%s %q: %s %s %s", verdicts[i], value, o.result, o.message, o.log)
			}
			if verdicts[i] == "file" && !strings.Contains(o.message, "did you mean ./"+value) {
				t.Errorf("%q: %s", value, o.message)
			}
		}
		verdicts, values = table(t, "../launcher/inside/testdata/mounts.txt")
		for i, value := range values {
			o := h.submit(submission{Event: "queuejob", Resources: map[string]string{"container_image": "a", "container_mounts": value}})
			if (o.result == "accept") != (verdicts[i] == "good") {
				t.Errorf("%s %q: %s %s %s", verdicts[i], value, o.result, o.message, o.log)
			}
		}
	})
}

// TestSubmission: what a user gives in either way, and what becomes of it.
func TestSubmission(t *testing.T) {
	image := map[string]string{"container_image": "debian:12"}
	with := func(more map[string]string) map[string]string {
		all := maps.Clone(image)
		maps.Copy(all, more)
		return all
	}
	onEach(t, func(t *testing.T, h *host) {
		for name, tc := range map[string]struct {
			s       submission
			refused string            // part of the message; "" for accepted
			set     map[string]string // what the hook sets
		}{
			"none":         {submission{Event: "queuejob", Resources: map[string]string{"ncpus": "2"}, Variables: map[string]string{"A": "b"}}, "", nil},
			"by resource":  {submission{Event: "queuejob", Resources: image}, "", image},
			"by variable":  {submission{Event: "queuejob", Variables: map[string]string{"CONTAINER_IMAGE": "debian:12", "CONTAINER_MOUNTS": `/a:/b\,/c d:/d\\e`}}, "", with(map[string]string{"container_mounts": `/a:/b,/c d:/d\e`})},
			"both":         {submission{Event: "queuejob", Resources: image, Variables: map[string]string{"CONTAINER_IMAGE": "other"}}, "", image},
			"no image":     {submission{Event: "queuejob", Resources: map[string]string{"container_mounts": "/a"}}, "container_mounts needs container_image", nil},
			"all":          {submission{Event: "queuejob", Resources: with(map[string]string{"container_mode": "ranks", "container_env": "A,_b9", "container_workdir": "/w o"})}, "", with(map[string]string{"container_mode": "ranks", "container_env": "A,_b9", "container_workdir": "/w o"})},
			"mode":         {submission{Event: "queuejob", Resources: with(map[string]string{"container_mode": "rank"})}, "write job", nil},
			"workdir":      {submission{Event: "queuejob", Resources: with(map[string]string{"container_workdir": "w"})}, "begins with /", nil},
			"env":          {submission{Event: "queuejob", Resources: with(map[string]string{"container_env": "A=b"})}, "no name of a variable", nil},
			"newline":      {submission{Event: "queuejob", Resources: with(map[string]string{"container_workdir": "/a\nb"})}, "control character", nil},
			"long":         {submission{Event: "queuejob", Resources: map[string]string{"container_image": strings.Repeat("a", 20000)}}, "longer than", nil},
			"qalter":       {submission{Event: "modifyjob", Resources: map[string]string{"container_mounts": "/a:/b"}}, "", nil},
			"qalter wrong": {submission{Event: "modifyjob", Resources: map[string]string{"container_image": "x.sqsh"}}, "did you mean ./x.sqsh", nil},
			// Jobs without a container could forge one that belongs to others.
			"forged":       {submission{Event: "queuejob", Variables: map[string]string{"X": "a\"\"\"\npbs.event().job.euser=bob"}}, "taken for PBS's own", nil},
			"forged alter": {submission{Event: "modifyjob", Variables: map[string]string{"X": "a\r \tpbs.event().job.euser=bob"}}, "taken for PBS's own", nil},
			"forged args":  {submission{Event: "queuejob", Attributes: map[string]string{"Submit_arguments": "-v 'X=a\npbs.event().job.id=1.s'"}}, "taken for PBS's own", nil},
			"function":     {submission{Event: "queuejob", Variables: map[string]string{"BASH_FUNC_x%%": "() {  echo pbs.event\n}"}}, "", nil},
		} {
			t.Run(name, func(t *testing.T) {
				o := h.with(t).submit(tc.s)
				if (o.result == "accept") != (tc.refused == "") || !strings.Contains(o.message, tc.refused) || o.log != "" {
					t.Errorf("%+v; want %q", o, tc.refused)
				}
				if tc.refused == "" && !maps.Equal(o.resources, tc.set) {
					t.Errorf("set %v; want %v", o.resources, tc.set)
				}
			})
		}
	})
}

// TestPin: the account asks, and a registry that does not answer stops nobody.
func TestPin(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("not root: nobody can be made the account")
	}
	digest := "sha256:" + strings.Repeat("a", 64)
	onEach(t, func(t *testing.T, h *host) {
		must(t, os.Chmod(h.dir, 0o777))
		must(t, os.Chmod(filepath.Dir(h.dir), 0o711))
		h.config["account"], h.config["pin_timeout"] = "nobody", 1
		for name, tc := range map[string]struct{ image, act, want, log string }{
			"pinned":     {"a/b:1", "echo " + digest, "a/b:1@" + digest, ""},
			"by digest":  {"a/b@" + digest, "exit 1", "a/b@" + digest, ""},
			"path":       {"./x.sqsh", "exit 1", "./x.sqsh", ""},
			"fails":      {"a/b:1", "echo no such host >&2; exit 75", "a/b:1", "no such host"},
			"nonsense":   {"a/b:1", "echo sha256:abc", "a/b:1", "not pinned"},
			"hangs":      {"a/b:1", "exec sleep 30", "a/b:1", "no answer"},
			"is missing": {"a/b:1", "", "a/b:1", "not pinned"},
		} {
			t.Run(name, func(t *testing.T) {
				h.program("bin/berth", tc.act)
				if tc.act == "" {
					must(t, os.Remove(filepath.Join(h.prefix, "bin/berth")))
				}
				o := h.with(t).submit(submission{Event: "queuejob", Resources: map[string]string{"container_image": tc.image}})
				if o.result != "accept" || o.resources["container_image"] != tc.want || !strings.Contains(o.log, tc.log) || (tc.log == "") != (o.log == "") {
					t.Errorf("%+v", o)
				}
				if o.took > 10*time.Second {
					t.Errorf("took %s", o.took)
				}
				if call, _ := h.call(); name == "pinned" && (!strings.Contains(call, "arg resolve\narg --timeout\narg 1s\narg --\narg a/b:1\ncwd /\n") || environment(call) != "LANG=C PATH=/usr/sbin:/usr/bin:/sbin:/bin") {
					t.Errorf("called as\n%s", call)
				} else if info, err := os.Stat(h.file("call")); name == "pinned" && (err != nil || owner(info) == 0) {
					t.Errorf("root asked a registry: %v", err)
				}
			})
		}
	})
}

func environment(call string) string {
	var all []string
	for line := range strings.Lines(call) {
		if v, ok := strings.CutPrefix(strings.TrimSpace(line), "env "); ok {
			all = append(all, v)
		}
	}
	return strings.Join(all, " ")
}

// beginLines is execjob_begin as a node gets it.
func beginLines(more ...string) []string {
	return append([]string{
		"pbs.event().type=execjob_begin", "pbs.event().job.id=7[2].server", "pbs.event().job.euser=nobody",
		"pbs.event().job.egroup=nogroup", "pbs.event().job.exec_host=n1/0*2+n2/0+n1/1",
		`pbs.event().job.Variable_List="""PBS_O_WORKDIR=/home/a b\,c\\d,X=y"""`,
		"pbs.event().job.Resource_List[container_image]=debian:12@sha256:1",
		"pbs.event().job.Resource_List[container_mounts]=/a b:/c",
		"pbs.event().job.Resource_List[container_mode]=ranks",
	}, more...)
}

// changed is beginLines with another value in one of them.
func changed(name, value string) []string {
	lines := beginLines()
	i := slices.IndexFunc(lines, func(l string) bool { return strings.HasPrefix(l, "pbs.event()."+name+"=") })
	lines[i] = "pbs.event()." + name + "=" + value
	return lines
}

// TestBegin: the request comes from what the server says, by a program that
// gets nothing of the hook's or the job's environment.
func TestBegin(t *testing.T) {
	onEach(t, func(t *testing.T, h *host) {
		o := h.event(beginLines()...)
		call, input := h.call()
		m, err := wire.Decode(input)
		if err != nil || o.result != "accept" || o.log != "" {
			t.Fatalf("%+v, %v", o, err)
		}
		for key, want := range map[string]string{
			"job": "7[2].server", "uid": "65534", "gid": "65534", "nodes": "2", "dir": `/home/a b,c\d`,
			"image": "debian:12@sha256:1", "mounts": "/a b:/c", "mode": "ranks", "tmpdir": "/var/tmp",
		} {
			if got := m.All(key); len(got) != 1 || got[0] != want {
				t.Errorf("%s: %q, want %q", key, got, want)
			}
		}
		if visible := m.All("visible"); !slices.Contains(visible, "/etc/pbs.conf") || !slices.Contains(visible, "/var/spool/pbs/mom_priv/jobs") {
			t.Errorf("visible %q", visible)
		}
		if environment(call) != "LANG=C PATH=/usr/sbin:/usr/bin:/sbin:/bin" || !strings.HasSuffix(call, "arg job\ncwd /\n") {
			t.Errorf("called as\n%s", call)
		}
		if o := h.event("pbs.event().type=execjob_begin", "pbs.event().job.id=7.server", "pbs.event().job.euser=nobody"); o.result != "accept" {
			t.Errorf("%+v", o)
		}
		if call, _ := h.call(); call != "" {
			t.Errorf("a job without a container: called as %s", call)
		}
	})
}

// TestBeginNeverRefuses: PBS would try again, and hold the job after 21 times.
func TestBeginNeverRefuses(t *testing.T) {
	onEach(t, func(t *testing.T, h *host) {
		create := filepath.Join(h.prefix, "libexec/berth/berth-create")
		for name, tc := range map[string]struct {
			act   string
			lines []string
			log   string
		}{
			"fails":        {"exit 70", beginLines(), "7[2].server"},
			"hangs":        {"exec sleep 20", beginLines(), "takes long"},
			"no such user": {"", changed("job.euser", "who"), "who"},
			"a path":       {"", changed("job.id", "7.s/../../x"), "not a job's id"},
			"two users":    {"", beginLines("pbs.event().job.euser=daemon"), "more than once"},
			"two ids":      {"", beginLines("  pbs.event().job.id=8.server"), "more than once"},
		} {
			t.Run(name, func(t *testing.T) {
				h.program("libexec/berth/berth-create", tc.act)
				o := h.with(t).event(tc.lines...)
				if o.result != "accept" || !strings.Contains(o.log, tc.log) || o.took > 5*time.Second {
					t.Errorf("%+v", o)
				}
				if call, _ := h.call(); tc.act == "" && call != "" {
					t.Errorf("it was started: %s", call)
				}
			})
		}
		must(t, os.Remove(create))
		if o := h.event(beginLines()...); o.result != "accept" || !strings.Contains(o.log, "berth-create") {
			t.Errorf("without the program: %+v", o)
		}
	})
}

// TestBeginSurvivesTheHook: what makes the container is in a session of its
// own, because PBS kills the hook's process group.
func TestBeginSurvivesTheHook(t *testing.T) {
	onEach(t, func(t *testing.T, h *host) {
		h.program("libexec/berth/berth-create", `ps -o pid=,pgid=,sid= -p $$ >`+h.dir+`/session; echo recorded`)
		if o := h.event(beginLines()...); o.result != "accept" || o.log != "" {
			t.Fatalf("%+v", o)
		}
		data, err := os.ReadFile(h.file("session"))
		must(t, err)
		if f := strings.Fields(string(data)); len(f) != 3 || f[0] != f[1] || f[0] != f[2] {
			t.Errorf("pid, group, session: %q", data)
		}
	})
}

func launchLines(more ...string) []string {
	return append([]string{"pbs.event().type=execjob_launch", "pbs.event().job.id=7.server"}, more...)
}

const wantsImage = "pbs.event().job.Resource_List[container_image]=debian:12"

// inner undoes escape, as cmd/berth/task.go does.
func inner(t *testing.T, argv []string) (args []string) {
	t.Helper()
	i := slices.Index(argv, "--")
	if i < 0 {
		t.Fatalf("argv %q", argv)
	}
	for _, a := range argv[i+1:] {
		plain, err := url.PathUnescape(strings.TrimPrefix(a, "="))
		if err != nil || !strings.HasPrefix(a, "=") {
			t.Errorf("argument %q: %v", a, err)
		}
		args = append(args, plain)
	}
	return args
}

// TestLaunch: only argv changes, whatever the arguments hold.
func TestLaunch(t *testing.T) {
	argv := func(args ...string) (lines []string) {
		for i, a := range args {
			lines = append(lines, fmt.Sprintf("pbs.event().argv[%d]=%s", i, a))
		}
		return lines
	}
	onEach(t, func(t *testing.T, h *host) {
		for name, tc := range map[string]struct {
			lines []string
			want  []string // nil: the task stays as it is
		}{
			"script":       {[]string{wantsImage, "pbs.event().progname=/bin/bash"}, []string{"/bin/bash"}},
			"executable":   {append(argv("/bin/a b", "-x", "c,d", `e\f`, "%41", "=", "ü", "--"), wantsImage, "pbs.event().progname=/bin/a b"), []string{"/bin/a b", "-x", "c,d", `e\f`, "%41", "=", "ü", "--"}},
			"no container": {append(argv("ls"), "pbs.event().progname=ls"), nil},
			"ranks":        {append(argv("ls"), "pbs.event().progname=ls", wantsImage, "pbs.event().job.Resource_List[container_mode]=ranks"), nil},
		} {
			t.Run(name, func(t *testing.T) {
				o := h.with(t).event(launchLines(tc.lines...)...)
				if o.result != "accept" || o.log != "" || o.output != "" {
					t.Fatalf("%+v", o)
				}
				if tc.want == nil {
					if o.progname == filepath.Join(h.prefix, "bin/berth") {
						t.Errorf("%+v", o)
					}
					return
				}
				if o.progname != filepath.Join(h.prefix, "bin/berth") || !slices.Equal(o.argv[:3], []string{"berth", "task", "--job=7.server"}) || slices.Contains(o.argv, "--shell") != (name == "script") || !slices.Equal(inner(t, o.argv), tc.want) {
					t.Errorf("%q; want %q", o.argv, tc.want)
				}
			})
		}
	})
}

// TestLaunchBelievesTheRecord: what the job's user can forge decides nothing
// where root has written down what is so.
func TestLaunchBelievesTheRecord(t *testing.T) {
	onEach(t, func(t *testing.T, h *host) {
		job := filepath.Join(h.runDir, "jobs/7.server")
		must(t, os.MkdirAll(job, 0o755))
		for mode, wrapped := range map[string]bool{"job": true, "ranks": false} {
			must(t, os.WriteFile(filepath.Join(job, "record.json"), []byte(`{"mode":"`+mode+`"}`), 0o600))
			for _, forged := range [][]string{
				nil, {"pbs.event().job.Resource_List[container_mode]=ranks", wantsImage}, {"pbs.event().job.Resource_List[container_image]="},
			} {
				o := h.event(launchLines(append([]string{"pbs.event().progname=/bin/sh"}, forged...)...)...)
				if got := strings.HasSuffix(o.progname, "/bin/berth"); got != wrapped || o.result != "accept" {
					t.Errorf("%s with %q: %+v", mode, forged, o)
				}
			}
		}
		for _, changed := range []string{"", "[]", `{"mode": 1}`, "{" + strings.Repeat(" ", 1<<20)} {
			must(t, os.WriteFile(filepath.Join(job, "record.json"), []byte(changed), 0o600))
			if o := h.event(launchLines("pbs.event().progname=/bin/sh")...); !strings.HasSuffix(o.progname, "/bin/berth") || o.log != "" {
				t.Errorf("a record of %.9q: %+v", changed, o)
			}
		}
		o := h.event("pbs.event().type=execjob_launch", "pbs.event().job.id=../7.server", "pbs.event().progname=/bin/sh", wantsImage)
		if o.progname != "/bin/sh" || !slices.Contains(o.argv, "-c") || o.result != "accept" {
			t.Errorf("a path for an id: %+v", o)
		}
	})
}

// TestLaunchWithoutBerth: the task says so and ends with 125, it does not run
// outside of its container.
func TestLaunchWithoutBerth(t *testing.T) {
	onEach(t, func(t *testing.T, h *host) {
		must(t, os.Remove(filepath.Join(h.prefix, "bin/berth")))
		o := h.event(launchLines("pbs.event().progname=/bin/bash", wantsImage)...)
		if o.result != "accept" || o.progname != "/bin/sh" {
			t.Fatalf("%+v", o)
		}
		cmd := exec.Command(o.progname, o.argv[1:]...)
		var stderr bytes.Buffer
		cmd.Stderr = &stderr
		err := cmd.Run()
		if cmd.ProcessState.ExitCode() != 125 || !strings.Contains(stderr.String(), "berth: error: ") || !strings.Contains(stderr.String(), "not on this node") {
			t.Errorf("%v: %s", err, stderr.String())
		}
	})
}

// TestEnd: every event at a job's end cleans up, and none ever refuses.
func TestEnd(t *testing.T) {
	onEach(t, func(t *testing.T, h *host) {
		for _, event := range []string{"execjob_epilogue", "execjob_end", "execjob_abort"} {
			lines := []string{"pbs.event().type=" + event, "pbs.event().job.id=7[1].server"}
			if o := h.event(lines...); o.result != "accept" || o.log != "" {
				t.Errorf("%+v", o)
			}
			if call, _ := h.call(); call != "" {
				t.Errorf("%s of a job without a container: %s", event, call)
			}
			must(t, os.MkdirAll(filepath.Join(h.runDir, "jobs/7[1].server"), 0o755))
			h.program("bin/berth", "echo bad luck >&2; exit 75")
			o := h.event(lines...)
			call, input := h.call()
			if o.result != "accept" || !strings.Contains(o.log, "bad luck") || !strings.Contains(call, "arg node\narg cleanup\n") || string(input) != "job=7[1].server\x00" {
				t.Errorf("%s: %+v, %s %q", event, o, call, input)
			}
			o = h.event(append(lines, "pbs.event().job.id=7[1].server")...)
			if call, _ := h.call(); o.result != "accept" || call != "" || !strings.Contains(o.log, "more than once") {
				t.Errorf("%s with a forged id: %+v", event, o)
			}
			must(t, os.RemoveAll(h.runDir))
		}
		must(t, os.MkdirAll(filepath.Join(h.runDir, "jobs"), 0o755))
		o := h.event("pbs.event().type=exechost_startup")
		if call, _ := h.call(); o.result != "accept" || !strings.Contains(call, "arg node\narg reap\narg --pbs\n") {
			t.Errorf("%+v, %s", o, call)
		}
	})
}

// TestBrokenConfiguration stops no job that wants no container.
func TestBrokenConfiguration(t *testing.T) {
	onEach(t, func(t *testing.T, h *host) {
		h.config["colour"] = "blue"
		if o := h.submit(submission{Event: "queuejob"}); o.result != "accept" || !strings.Contains(o.log, "colour") {
			t.Errorf("%+v", o)
		}
		if o := h.submit(submission{Event: "queuejob", Resources: map[string]string{"container_image": "a"}}); o.result != "reject" || !strings.Contains(o.message, "administrator") {
			t.Errorf("%+v", o)
		}
		if o := h.event(beginLines()...); o.result != "accept" {
			t.Errorf("%+v", o)
		}
		if o := h.event(launchLines("pbs.event().progname=/bin/sh", wantsImage)...); o.result != "accept" || !slices.Contains(o.argv, "-c") {
			t.Errorf("%+v", o)
		}
	})
}
