package main

import (
	"context"
	"errors"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// A terminal is what the user sits at, whatever standard input is.
type terminal struct{ *os.File }

func openTerminal() (terminal, error) {
	f, err := os.OpenFile("/dev/tty", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		return terminal{}, errors.New("there is no terminal to ask for your password on")
	}
	return terminal{f}, nil
}

// ask prints a question and returns the line that answers it.
func (t terminal) ask(ctx context.Context, question string) (string, error) {
	if _, err := t.WriteString(question); err != nil {
		return "", err
	}
	stop := context.AfterFunc(ctx, func() { _ = t.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	// A terminal gives a line at a time, and nothing that was typed ahead.
	line := make([]byte, maxLine)
	n, err := t.Read(line)
	defer clear(line)
	if ctx.Err() != nil {
		return "", context.Cause(ctx)
	}
	return strings.TrimRight(string(line[:n]), "\r\n"), err
}

// maxLine is more than a terminal gives at a time (N_TTY_BUF_SIZE).
const maxLine = 8192

// askHidden is ask for what nobody may see.
func (t terminal) askHidden(ctx context.Context, question string) (string, error) {
	before, err := t.settings()
	if err != nil {
		return "", err
	}
	quiet := *before
	quiet.Lflag = quiet.Lflag&^unix.ECHO | unix.ICANON | unix.ISIG | unix.ECHONL
	if err := t.set(&quiet); err != nil {
		return "", err
	}
	answer, err := t.ask(ctx, question)
	return answer, errors.Join(err, t.set(before))
}

func (t terminal) settings() (now *unix.Termios, err error) {
	err = t.control(func(fd int) (err error) {
		now, err = unix.IoctlGetTermios(fd, unix.TCGETS)
		return err
	})
	return now, err
}

func (t terminal) set(to *unix.Termios) error {
	return t.control(func(fd int) error { return unix.IoctlSetTermios(fd, unix.TCSETS, to) })
}

// control calls f with the descriptor, which Fd would make a blocking one, so
// that no signal could end the wait for an answer.
func (t terminal) control(f func(fd int) error) error {
	conn, err := t.SyscallConn()
	if err != nil {
		return err
	}
	var failed error
	err = conn.Control(func(fd uintptr) { failed = f(int(fd)) })
	return errors.Join(err, failed)
}
