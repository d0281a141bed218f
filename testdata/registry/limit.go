package main

import (
	"net"
	"sync"
	"time"
)

// piece is how much a connection sends at a time, in bytes: connections that
// share a bandwidth take turns by pieces. late is by how much a piece may come
// late, because timers do, without the bandwidth being lost.
const (
	piece = 64 << 10
	late  = 50 * time.Millisecond
)

// A link is a bandwidth that all connections of a listener share, for what they
// send.
type link struct {
	bandwidth float64 // bytes per second

	mu   sync.Mutex
	free time.Time // when all that was sent so far is through
}

// pass returns when n bytes more are through.
func (l *link) pass(n int) {
	l.mu.Lock()
	if earliest := time.Now().Add(-late); l.free.Before(earliest) {
		l.free = earliest
	}
	l.free = l.free.Add(time.Duration(float64(n) / l.bandwidth * float64(time.Second)))
	until := l.free
	l.mu.Unlock()
	time.Sleep(time.Until(until))
}

// limit makes all connections of l share a bandwidth; 0 is no limit.
func limit(l net.Listener, bandwidth float64) net.Listener {
	if bandwidth <= 0 {
		return l
	}
	return &limited{l, &link{bandwidth: bandwidth}}
}

type limited struct {
	net.Listener
	link *link
}

// Accept implements net.Listener.
func (l *limited) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return &limitedConn{c, l.link}, nil
}

// limitedConn has no ReadFrom, so that files do not go past it.
type limitedConn struct {
	net.Conn
	link *link
}

// Write implements net.Conn.
func (c *limitedConn) Write(p []byte) (sent int, err error) {
	for len(p) > 0 && err == nil {
		part := p[:min(len(p), piece)]
		c.link.pass(len(part))
		var n int
		n, err = c.Conn.Write(part)
		sent, p = sent+n, p[n:]
	}
	return sent, err
}
