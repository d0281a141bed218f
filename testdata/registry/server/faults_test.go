package server_test

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/partial"

	"github.com/berth-hpc/berth/testdata/images"
	"github.com/berth-hpc/berth/testdata/registry/server"
)

// large is an image with one layer that Faults takes for one.
func large(t *testing.T) v1.Image {
	t.Helper()
	// Letters in no order that gzip would find.
	text := make([]byte, 256<<10)
	for i, x := 0, uint32(1); i < len(text); i++ {
		x = x*1664525 + 1013904223
		text[i] = byte(x >> 24)
	}
	img, err := images.FromFiles(v1.Config{}, []images.File{images.Text("data", string(text))})
	if err != nil {
		t.Fatal(err)
	}
	return img
}

func fetch(t *testing.T, url string, login bool) (status int, body []byte, err error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	if name, password, _ := strings.Cut(server.Login, ":"); login {
		req.SetBasicAuth(name, password)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err = io.ReadAll(resp.Body)
	return resp.StatusCode, body, err
}

func TestFaults(t *testing.T) {
	reg := server.Start(t, server.Options{Dir: t.TempDir(), Wrap: server.Faults})
	img := large(t)
	if _, err := images.Push(t.Context(), reg.Host, "x:1", img); err != nil {
		t.Fatal(err)
	}
	layers, err := img.Layers()
	if err != nil {
		t.Fatal(err)
	}
	desc, err := partial.Descriptor(layers[0])
	if err != nil {
		t.Fatal(err)
	}
	manifest, blob := "/manifests/1", "/blobs/"+desc.Digest.String()
	for _, tc := range []struct {
		how, path string
		status    int
		short     bool // the body ends too early
	}{
		{"none", blob, 200, false},
		{"status-403", manifest, 403, false},
		{"status-429", blob, 429, false},
		{"manifest-500", manifest, 200, false},
		{"manifest-500", blob, 500, false},
		{"auth", manifest, 401, false},
		{"layer-cut", manifest, 200, false},
		{"layer-cut", blob, 200, true},
		{"layer-stall", blob, 200, true},
	} {
		status, body, err := fetch(t, "http://"+reg.Host+"/v2/faults/"+tc.how+"/x"+tc.path, false)
		if status != tc.status || (err != nil) != tc.short {
			t.Errorf("%s%s: status %d, %d bytes, %v", tc.how, tc.path, status, len(body), err)
		}
		if stalled := errors.Is(err, context.DeadlineExceeded); stalled != (tc.how == "layer-stall") {
			t.Errorf("%s%s: %v", tc.how, tc.path, err)
		}
	}
	if status, _, _ := fetch(t, "http://"+reg.Host+"/v2/faults/auth/x"+manifest, true); status != 200 {
		t.Errorf("with the login: status %d", status)
	}
	_, plain, _ := fetch(t, "http://"+reg.Host+"/v2/x"+blob, false)
	_, flipped, _ := fetch(t, "http://"+reg.Host+"/v2/faults/layer-flip/x"+blob, false)
	if len(plain) != len(flipped) || string(plain) == string(flipped) {
		t.Errorf("%d bytes, flipped %d", len(plain), len(flipped))
	}
	var index v1.IndexManifest
	_, body, _ := fetch(t, "http://"+reg.Host+"/v2/faults/platform/x"+manifest, false)
	if err := json.Unmarshal(body, &index); err != nil || len(index.Manifests) != 1 || index.Manifests[0].Platform.Architecture != "s390x" {
		t.Errorf("index %s: %v", body, err)
	}
}
