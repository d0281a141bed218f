package imagecache

import (
	"crypto/sha256"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/berth-hpc/berth/imagecache/store"
)

func TestCompressed(t *testing.T) {
	const hash = "sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
	const config = `"config":{"mediaType":"application/vnd.oci.image.config.v1+json","size":2,"digest":"` + hash + `"},`
	tests := []struct {
		name, config, sizes string
		want                int64 // 0 for an error
	}{
		{"sum", config, "3,4", 7},
		{"negative", config, "100,-99", 0},
		{"too large together", config, "9223372036854775807,9223372036854775807,10", 0},
		{"no image", "", "3", 0},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var layers []string
			for size := range strings.SplitSeq(tt.sizes, ",") {
				layers = append(layers, `{"mediaType":"application/vnd.oci.image.layer.v1.tar","digest":"`+hash+`","size":`+size+`}`)
			}
			manifest := `{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json",` + tt.config + `"layers":[` + strings.Join(layers, ",") + `]}`
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("Content-Type", "application/vnd.oci.image.manifest.v1+json")
				fmt.Fprint(w, manifest)
			}))
			defer server.Close()
			ref, err := ParseReference(strings.TrimPrefix(server.URL, "http://") + "/a:v1")
			if err != nil {
				t.Fatal(err)
			}
			d, err := store.ParseDigest(fmt.Sprintf("sha256:%x", sha256.Sum256([]byte(manifest))))
			if err != nil {
				t.Fatal(err)
			}
			got, err := Compressed(t.Context(), ref, d, Network{})
			if got != tt.want || (err == nil) != (tt.want > 0) {
				t.Errorf("%d, %v", got, err)
			}
		})
	}
}
