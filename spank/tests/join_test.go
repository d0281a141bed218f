package tests

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// A handmade is a container without Berth: N1 and a mount namespace with a
// tmpfs on /mnt, and N2 below N1. Files are 3 to 6 of a process started with
// them: N1, the mount namespace, N2, the result.
type handmade struct{ files []*os.File }

// newHandmade makes a container as whoever runs the test.
func newHandmade(t testing.TB, result string) *handmade {
	t.Helper()
	outer := hold(t, "unshare", "--user", "--map-root-user", "--mount", "sh", "-c",
		"mount -t tmpfs tmpfs /mnt && mkdir /mnt/work /mnt/other && echo ready && exec cat")
	inner := hold(t, "nsenter", "--target", strconv.Itoa(outer), "--user", "--preserve-credentials",
		"unshare", "--user", "--map-users="+strconv.Itoa(os.Getuid())+",0,1", "sh", "-c", "echo ready && exec cat")
	h := &handmade{}
	for _, path := range []string{
		fmt.Sprintf("/proc/%d/ns/user", outer), fmt.Sprintf("/proc/%d/ns/mnt", outer), fmt.Sprintf("/proc/%d/ns/user", inner),
	} {
		f, err := os.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { f.Close() })
		h.files = append(h.files, f)
	}
	path := filepath.Join(t.TempDir(), "result")
	if err := os.WriteFile(path, []byte(result), 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	h.files = append(h.files, f)
	return h
}

// hold starts a command that says "ready" and then reads its input until the
// end of the test. It returns the process.
func hold(t testing.TB, name string, args ...string) int {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	cmd := exec.CommandContext(ctx, name, args...)
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		in.Close()
		_ = cmd.Wait()
		cancel()
	})
	if line, err := bufio.NewReader(out).ReadString('\n'); line != "ready\n" {
		t.Skipf("no user namespaces here: %s: %q, %v", name, line, err)
	}
	return cmd.Process.Pid
}

// run runs a program with the container's descriptors. It returns what it
// printed and its exit code.
func (h *handmade) run(t testing.TB, env []string, program string, args ...string) (string, int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.ExtraFiles = h.files
	cmd.Env = append(os.Environ(), env...)
	out, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatalf("%s: %v", program, err)
	}
	return string(out), cmd.ProcessState.ExitCode()
}

func buildJoin(t testing.TB) string {
	t.Helper()
	build := t.TempDir()
	if out, err := exec.Command("make", "-s", "-C", joinDir, "BUILD="+build, "SANITIZE=1").CombinedOutput(); err != nil {
		t.Fatalf("build berth-join: %v\n%s", err, out)
	}
	return filepath.Join(build, "libexec", "berth", "berth-join")
}

// TestJoinProgram runs berth-join on a container made by hand, whose root has the
// libraries of the host: so also with what finds wrong use of memory.
func TestJoinProgram(t *testing.T) {
	t.Run("as built", func(t *testing.T) { testJoinProgram(t, buildJoin(t)) })
	t.Run("sanitized", func(t *testing.T) {
		t.Setenv("ASAN_OPTIONS", "detect_leaks=0")
		args := []string{"-fsanitize=address,undefined", "-fno-sanitize-recover=all", joinDir + "/berth-join/main.c"}
		for _, part := range []string{"task", "pid", "standby", "join", "variables", "filter", "wire"} {
			args = append(args, filepath.Join(joinDir, part+".c"))
		}
		testJoinProgram(t, compile(t, "berth-join", args...))
	})
}

func testJoinProgram(t *testing.T, join string) {
	h := newHandmade(t, "cwd=/mnt/work\x00env=FROM=image\x00env=KEPT=image\x00")
	uid := strconv.Itoa(os.Getuid())
	user := []string{"--user=3", "--mnt=4", "--user2=5", "--result=6"}
	root := []string{"--user=3", "--mnt=4", "--result=6"}
	for _, test := range []struct {
		name string
		args []string
		want string
		code int
	}{
		{
			"as the user", append(user, "--", "sh", "-c", "pwd; id -u; echo $FROM $KEPT $LANG; grep CapEff /proc/self/status; ls -l /proc/self/fd | grep -cE '(user|mnt):|result'"),
			"/mnt/work\n" + uid + "\nimage image\n" + capsAfterExec() + "0\n", 1,
		},
		{"as root in appearance", append(root, "--", "sh", "-c", "id -u; mount -t tmpfs none /mnt/other && echo mounted"), "0\nmounted\n", 0},
		{"host's variable kept", append(user, "--keep-env=A,KEPT", "--", "sh", "-c", "echo $KEPT"), "host\n", 0},
		{"arguments after the command", append(user, "echo", "--user=x", "--"), "--user=x --\n", 0},
		{"exit code", append(user, "--", "sh", "-c", "exit 7"), "", 7},
		{"no such command", append(user, "--", "no-such-command"), "No such file", 127},
		{"not executable", append(user, "--", "/etc/passwd"), "Permission denied", 126},
		{"no command", user, "usage", 64},
		{"no result", []string{"--user=3", "--mnt=4", "--", "true"}, "usage", 64},
		{"not a number", []string{"--user=x", "--mnt=4", "--result=6", "--", "true"}, "usage", 64},
		{"not a namespace", []string{"--user=6", "--mnt=4", "--result=6", "--", "true"}, "cannot enter the container's user namespace", 70},
		{"closed descriptor", []string{"--user=3", "--mnt=40", "--result=6", "--", "true"}, "mount namespace: Bad file descriptor", 70},
	} {
		t.Run(test.name, func(t *testing.T) {
			out, code := h.run(t, []string{"KEPT=host", "LANG=host"}, join, test.args...)
			exact := test.code <= 1
			if code != test.code || exact && out != test.want || !strings.Contains(out, test.want) {
				t.Errorf("exit code %d, %q; want %d, %q", code, out, test.code, test.want)
			}
		})
	}
	missing := newHandmade(t, "cwd=/no/such/folder\x00")
	out, code := missing.run(t, nil, join, append(user, "--", "true")...)
	if code != 64 || !strings.Contains(out, "/no/such/folder") || !strings.Contains(out, "--container-workdir") {
		t.Errorf("working directory that is not there: exit code %d, %q", code, out)
	}
}

// capsAfterExec is what exec gives who joined: root gets all of N2's again.
func capsAfterExec() string {
	if os.Getuid() == 0 {
		return "CapEff:\t000001ffffffffff\n"
	}
	return "CapEff:\t0000000000000000\n"
}

// joinCost joins a container count times and returns the nanoseconds each took.
func joinCost(t testing.TB, count int) []int {
	t.Helper()
	program := filepath.Join(t.TempDir(), "joincost")
	args := []string{"-O2", "-D_GNU_SOURCE", "-static", "-I" + joinDir, "-o", program, "testdata/joincost.c", joinDir + "/join.c", joinDir + "/filter.c", joinDir + "/wire.c"}
	if out, err := exec.Command("cc", args...).CombinedOutput(); err != nil {
		t.Fatalf("compile joincost: %v\n%s", err, out)
	}
	h := newHandmade(t, "cwd=/mnt/work\x00env=PATH=/usr/local/bin:/usr/bin:/bin\x00env=LD_LIBRARY_PATH=/usr/local/lib\x00env=A=1\x00env=B=2\x00")
	out, code := h.run(t, nil, program, strconv.Itoa(count), "3", "4", "5", "6")
	if code != 0 {
		t.Fatal(out)
	}
	var costs []int
	for line := range strings.Lines(out) {
		n, err := strconv.Atoi(strings.TrimSpace(line))
		if err != nil {
			t.Fatal(err)
		}
		costs = append(costs, n)
	}
	return costs
}

// TestJoinLeavesNoPower: a task that joined as the user has no capability even
// before exec takes them, and its memory, slurmstepd's, stays private.
func TestJoinLeavesNoPower(t *testing.T) { joinCost(t, 1) }

// BenchmarkJoin measures what a task does once the container is there. The
// median must stay below 100 µs.
func BenchmarkJoin(b *testing.B) {
	costs := joinCost(b, max(b.N, 100))
	slices.Sort(costs)
	b.ReportMetric(float64(costs[len(costs)/2]), "median-ns")
	b.ReportMetric(float64(costs[len(costs)*9/10]), "p90-ns")
	b.ReportMetric(float64(costs[0]), "min-ns")
	b.ReportMetric(0, "ns/op")
}
