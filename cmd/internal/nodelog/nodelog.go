// Package nodelog hands what a node's programs log to journald or syslog, with
// the job and the step as fields. Neither is waited for: a daemon that stands
// still must hold up no prolog, so what its socket does not take at once is
// left out, and counted in the next message.
package nodelog

import (
	"bytes"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/berth-hpc/berth/cmd/internal/config"
	"github.com/berth-hpc/berth/fault"
	"github.com/sirupsen/logrus"
	"golang.org/x/sys/unix"
)

// Places are the sockets of the daemons.
type Places struct{ Journal, Syslog string }

// System are those of every Linux.
func System() Places {
	return Places{Journal: "/run/systemd/journal/socket", Syslog: "/dev/log"}
}

// Resolve says which one log.to means here; LogFiles where there is none.
func (p Places) Resolve(to string) string {
	if to != config.LogAuto {
		return to
	}
	for _, c := range []struct{ path, to string }{{p.Journal, config.LogJournal}, {p.Syslog, config.LogSyslog}} {
		if st, err := os.Stat(c.path); err == nil && st.Mode()&os.ModeSocket != 0 {
			return c.to
		}
	}
	return config.LogFiles
}

// Attach has log's messages go to where the setting log.to says, too. Where
// nobody listens they stay in log's own file.
func (p Places) Attach(log *logrus.Logger, to string) {
	h := &hook{}
	path := ""
	switch p.Resolve(to) {
	case config.LogJournal:
		h.format, path = journal, p.Journal
	case config.LogSyslog:
		h.format, path = syslog, p.Syslog
	default:
		return
	}
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return
	}
	if err := unix.Connect(fd, &unix.SockaddrUnix{Name: path}); err != nil {
		unix.Close(fd)
		return
	}
	h.fd = fd
	log.AddHook(h)
}

// A hook sends each message as one datagram. It implements logrus.Hook, whose
// Fire goroutines call at the same time.
type hook struct {
	fd      int // open as long as the process lives
	format  func(m *message) []byte
	dropped atomic.Int64
}

// Levels implements logrus.Hook.
func (h *hook) Levels() []logrus.Level { return logrus.AllLevels }

// Fire implements logrus.Hook. It never fails: logrus would say so on standard
// error, which is the log of a preparation.
func (h *hook) Fire(e *logrus.Entry) error {
	m := newMessage(e)
	dropped := h.dropped.Swap(0)
	if dropped > 0 {
		m.fields["dropped"] = fmt.Sprint(dropped)
	}
	if err := unix.Sendto(h.fd, h.format(m), unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL, nil); err != nil {
		h.dropped.Add(dropped + 1)
	}
	return nil
}

// A message is an entry as daemons take it: each text one line.
type message struct {
	severity int // of syslog
	time     time.Time
	text     string
	fields   map[string]string // by names of ours: [a-z_]
}

func newMessage(e *logrus.Entry) *message {
	m := &message{severity: severity(e.Level), time: e.Time, text: fault.Clean(e.Message), fields: map[string]string{}}
	for key, value := range e.Data {
		m.fields[key] = fault.Clean(fmt.Sprint(value))
	}
	if cause := m.fields[logrus.ErrorKey]; cause != "" {
		m.text += ": " + cause
	}
	return m
}

func severity(l logrus.Level) int {
	switch l {
	case logrus.PanicLevel, logrus.FatalLevel:
		return 2
	case logrus.ErrorLevel:
		return 3
	case logrus.WarnLevel:
		return 4
	case logrus.InfoLevel:
		return 6
	}
	return 7
}

const identifier = "berth"

// journal is a datagram of journald's native protocol
// (systemd.io/JOURNAL_NATIVE_PROTOCOL): a field a line, here without line feeds.
func journal(m *message) []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, "MESSAGE=%s\nPRIORITY=%d\nSYSLOG_IDENTIFIER=%s\nSYSLOG_PID=%d\n", m.text, m.severity, identifier, os.Getpid())
	for _, key := range slices.Sorted(maps.Keys(m.fields)) {
		fmt.Fprintf(&b, "BERTH_%s=%s\n", strings.ToUpper(key), m.fields[key])
	}
	return b.Bytes()
}

// syslog is a message of RFC 5424. The fields are in the text, too, for daemons
// that read the older format on /dev/log. 32473 is the number for examples (RFC
// 5612): Berth has none of its own.
func syslog(m *message) []byte {
	const facility = 3 // daemon
	var data, text strings.Builder
	for _, key := range slices.Sorted(maps.Keys(m.fields)) {
		if len(key) <= 32 {
			fmt.Fprintf(&data, " %s=\"%s\"", key, strings.NewReplacer(`\`, `\\`, `"`, `\"`, `]`, `\]`).Replace(m.fields[key]))
		}
		if key != logrus.ErrorKey {
			fmt.Fprintf(&text, " %s=%s", key, m.fields[key])
		}
	}
	host, err := os.Hostname()
	if err != nil {
		host = "-"
	}
	return fmt.Appendf(nil, "<%d>1 %s %s %s %d - [berth@32473%s] %s%s",
		facility*8+m.severity, m.time.Format("2006-01-02T15:04:05.000000Z07:00"), host, identifier, os.Getpid(), data.String(), m.text, text.String())
}
