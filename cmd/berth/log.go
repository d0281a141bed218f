package main

import (
	"bytes"
	"fmt"
	"io"

	"github.com/sirupsen/logrus"
)

// newLogger returns a log on out for messages of at least the level named.
func newLogger(out io.Writer, level string) (*logrus.Logger, error) {
	least, err := logrus.ParseLevel(level)
	if err != nil {
		return nil, err
	}
	log := logrus.New()
	log.SetOutput(out)
	log.SetLevel(least)
	log.SetFormatter(lines{})
	return log, nil
}

// lines writes messages the way errors are written: "berth: warning: text".
type lines struct{}

// Format returns one line.
func (lines) Format(e *logrus.Entry) ([]byte, error) {
	var b bytes.Buffer
	fmt.Fprintf(&b, "berth: %s: %s", e.Level, printable(e.Message))
	for _, key := range sortedKeys(e.Data) {
		fmt.Fprintf(&b, " %s=%s", key, printable(fmt.Sprint(e.Data[key])))
	}
	b.WriteByte('\n')
	return b.Bytes(), nil
}
