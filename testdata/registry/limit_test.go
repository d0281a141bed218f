package main

import (
	"io"
	"net"
	"testing"
	"time"
)

// All connections together are not faster than the bandwidth.
func TestBandwidthIsShared(t *testing.T) {
	const bandwidth, each, connections = 4 << 20, 512 << 10, 4
	plain, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l := limit(plain, bandwidth)
	defer l.Close()
	go func() {
		for c, err := l.Accept(); err == nil; c, err = l.Accept() {
			go func() {
				defer c.Close()
				_, _ = c.Write(make([]byte, each))
			}()
		}
	}()
	begin := time.Now()
	read := make(chan int64)
	for range connections {
		go func() {
			c, err := net.Dial("tcp", plain.Addr().String())
			if err != nil {
				read <- 0
				return
			}
			defer c.Close()
			n, _ := io.Copy(io.Discard, c)
			read <- n
		}()
	}
	for range connections {
		if n := <-read; n != each {
			t.Errorf("read %d bytes, want %d", n, each)
		}
	}
	if took, least := time.Since(begin), time.Second*each*connections/bandwidth-late; took < least {
		t.Errorf("%d bytes took %v, want at least %v", each*connections, took, least)
	}
}
