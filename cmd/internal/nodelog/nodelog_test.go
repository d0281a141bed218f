package nodelog_test

import (
	"errors"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/berth-hpc/berth/cmd/internal/config"
	"github.com/berth-hpc/berth/cmd/internal/nodelog"
	"github.com/sirupsen/logrus"
)

// listen plays a daemon's socket.
func listen(t *testing.T, path string) *net.UnixConn {
	t.Helper()
	c, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func receive(t *testing.T, c *net.UnixConn) string {
	t.Helper()
	buf := make([]byte, 64<<10)
	if err := c.SetReadDeadline(time.Now().Add(30 * time.Second)); err != nil {
		t.Fatal(err)
	}
	n, err := c.Read(buf)
	if err != nil {
		t.Fatal(err)
	}
	return string(buf[:n])
}

func quiet() *logrus.Logger {
	log := logrus.New()
	log.SetOutput(io.Discard)
	return log
}

func TestFields(t *testing.T) {
	dir := t.TempDir()
	p := nodelog.Places{Journal: filepath.Join(dir, "journal"), Syslog: filepath.Join(dir, "log")}
	journal, syslog := listen(t, p.Journal), listen(t, p.Syslog)
	say := func(to string) {
		log := quiet()
		p.Attach(log, to)
		log.WithFields(logrus.Fields{"job": "12", "step": "batch", "image": "x\nMESSAGE=forged\n\"]y"}).
			WithError(errors.New("no such image")).Error("no container")
	}
	for _, to := range []string{config.LogAuto, config.LogJournal} {
		say(to)
		got := receive(t, journal)
		for _, want := range []string{
			"\nPRIORITY=3\n", "\nSYSLOG_IDENTIFIER=berth\n", "\nBERTH_JOB=12\n", "\nBERTH_STEP=batch\n", "\nBERTH_IMAGE=x MESSAGE=forged \"]y\n",
		} {
			if !strings.HasPrefix(got, "MESSAGE=no container: no such image\n") || !strings.Contains(got, want) || strings.Count(got, "\nMESSAGE=") > 0 {
				t.Errorf("%s: want %q in %q", to, want, got)
			}
		}
	}
	say(config.LogSyslog)
	rfc5424 := regexp.MustCompile(`^<27>1 \d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}(Z|[+-]\d\d:\d\d) \S+ berth \d+ - \[berth@32473 error="no such image" image="x MESSAGE=forged \\"\\]y" job="12" step="batch"\] no container: no such image image=.* job=12 step=batch$`)
	if got := receive(t, syslog); !rfc5424.MatchString(got) {
		t.Errorf("%q", got)
	}
}

// What auto means, and that what is missing keeps nobody from logging.
func TestResolve(t *testing.T) {
	dir := t.TempDir()
	p := nodelog.Places{Journal: filepath.Join(dir, "journal"), Syslog: filepath.Join(dir, "log")}
	if got := p.Resolve(config.LogAuto); got != config.LogFiles {
		t.Errorf("neither: %s", got)
	}
	log := quiet()
	p.Attach(log, config.LogJournal)
	log.Info("nobody listens")
	if err := os.WriteFile(p.Journal, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	listen(t, p.Syslog)
	if got := p.Resolve(config.LogAuto); got != config.LogSyslog {
		t.Errorf("a file and a socket: %s", got)
	}
	if got := p.Resolve(config.LogFiles); got != config.LogFiles {
		t.Errorf("files: %s", got)
	}
}

// A daemon that reads nothing stops nobody, and hears later how much it missed.
func TestNeverBlocks(t *testing.T) {
	dir := t.TempDir()
	p := nodelog.Places{Journal: filepath.Join(dir, "journal")}
	journal := listen(t, p.Journal)
	log := quiet()
	p.Attach(log, config.LogJournal)
	done := make(chan bool)
	go func() {
		for range 5000 { // far more than net.unix.max_dgram_qlen and a socket's buffer
			log.Info(strings.Repeat("x", 1000))
		}
		close(done)
	}()
	select {
	case <-done:
	case <-time.After(time.Minute):
		t.Fatal("a daemon that reads nothing blocks")
	}
	receive(t, journal) // makes room
	log.Info("after")
	for range 5000 {
		if got := receive(t, journal); strings.HasPrefix(got, "MESSAGE=after\n") {
			if !regexp.MustCompile(`\nBERTH_DROPPED=\d{2,}\n`).MatchString(got) {
				t.Errorf("%q", got)
			}
			return
		}
	}
	t.Error("nothing came after")
}

// TestJournald has the real journald take a message, and journalctl find it by
// the job.
func TestJournald(t *testing.T) {
	journald := "/lib/systemd/systemd-journald"
	if _, err := os.Stat(journald); err != nil || os.Getuid() != 0 {
		t.Skip("needs root and systemd-journald")
	}
	if _, err := exec.LookPath("journalctl"); err != nil {
		t.Skip("needs journalctl")
	}
	script := `set -e
mount -t tmpfs none /run; mkdir -p /run/systemd/journal /run/log/journal
mount --bind /run/log/journal /var/log
: >/run/cmdline; mount --bind /run/cmdline /proc/cmdline 2>/dev/null || true
"$1" & pid=$!
i=0; while [ ! -S /run/systemd/journal/socket ]; do i=$((i+1)); [ $i -lt 300 ]; sleep 0.1; done
"$2" -test.run '^TestSendToJournald$' -test.count=1
i=0; until journalctl --directory=/run/log/journal --no-pager -q -o cat BERTH_JOB=4711 BERTH_STEP=3 | grep -x 'a message of a step'; do i=$((i+1)); [ $i -lt 100 ]; sleep 0.1; done
journalctl --directory=/run/log/journal --no-pager -q -o cat BERTH_JOB=4712
kill $pid`
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("timeout", "60", "unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "sh", "-c", script, "sh", journald, self)
	cmd.Env = append(os.Environ(), "BERTH_TEST_JOURNALD=1")
	out, err := cmd.CombinedOutput()
	if strings.Contains(string(out), "Failed to open /dev/kmsg") || strings.Contains(string(out), "Operation not permitted") && err != nil {
		t.Skipf("journald cannot run here: %s", out)
	}
	if err != nil || !strings.Contains(string(out), "a message of a step") {
		t.Errorf("%v:\n%s", err, out)
	}
}

// TestSendToJournald is TestJournald's part in its namespaces.
func TestSendToJournald(t *testing.T) {
	if os.Getenv("BERTH_TEST_JOURNALD") == "" {
		t.Skip("TestJournald starts it")
	}
	log := quiet()
	nodelog.System().Attach(log, config.LogAuto)
	log.WithFields(logrus.Fields{"job": "4711", "step": "3"}).Info("a message of a step")
}
