package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"net/http"
	"os"
	"path/filepath"
	"testing"
)

func TestServesHTTPSUnderItsCA(t *testing.T) {
	dir := t.TempDir()
	f := flags{
		Listen: "127.0.0.1:0", Dir: filepath.Join(dir, "store"),
		ReadyFile: filepath.Join(dir, "ready"), CAFile: filepath.Join(dir, "ca.pem"),
	}
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- serve(ctx, f) }()
	url := "https://" + waitFor(t, f.ReadyFile) + "/v2/"
	if _, err := http.Get(url); err == nil {
		t.Error("the system's CAs vouch for the registry of a test")
	}
	pem, err := os.ReadFile(f.CAFile)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(pem)
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}}
	defer transport.CloseIdleConnections()
	resp, err := (&http.Client{Transport: transport}).Get(url)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	stop()
	if err := <-done; err != nil {
		t.Error(err)
	}
}
