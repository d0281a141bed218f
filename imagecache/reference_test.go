package imagecache

import (
	"os"
	"strings"
	"testing"

	"github.com/berth-hpc/berth/fault"
)

var testDigest = "sha256:" + strings.Repeat("ab", 32)

func TestParseReference(t *testing.T) {
	for _, test := range []struct {
		in, want string // want: String()
		user     string
	}{
		{"debian", "docker.io/library/debian:latest", ""},
		{"debian:12", "docker.io/library/debian:12", ""},
		{"docker://debian:12", "docker.io/library/debian:12", ""},
		{"team/tool", "docker.io/team/tool:latest", ""},
		{"docker.io/debian", "docker.io/library/debian:latest", ""},
		{"index.docker.io/a/b", "docker.io/a/b:latest", ""},
		{"quay.io/biocontainers/samtools:1.20", "quay.io/biocontainers/samtools:1.20", ""},
		{"quay.io#biocontainers/samtools:1.20", "quay.io/biocontainers/samtools:1.20", ""},
		{`nvcr.io\#nvidia/pytorch:24.01`, "nvcr.io/nvidia/pytorch:24.01", ""},
		{"registry#tool", "registry#tool:latest", ""},
		{"docker.io#debian", "docker.io/library/debian:latest", ""},
		{"localhost/tool", "localhost/tool:latest", ""},
		{"node1:5000/a/b/c:t", "node1:5000/a/b/c:t", ""},
		{"node1:5000#a:t", "node1:5000/a:t", ""},
		{"me@debian", "docker.io/library/debian:latest", "me"},
		{"me@quay.io/a/b:1", "quay.io/a/b:1", "me"},
		{"$oauthtoken@nvcr.io#nvidia/pytorch:24.01", "nvcr.io/nvidia/pytorch:24.01", "$oauthtoken"},
		{"me@site.org@quay.io/a/b", "quay.io/a/b:latest", "me@site.org"},
		{"debian@" + testDigest, "docker.io/library/debian@" + testDigest, ""},
		{"me@quay.io#a/b:1@" + testDigest, "quay.io/a/b:1@" + testDigest, "me"},
		{"oci:dir", "oci:dir", ""},
		{"oci:/a/dir:v1", "oci:/a/dir:v1", ""},
		{"oci:dir@" + testDigest, "oci:dir@" + testDigest, ""},
		{"docker-archive:a.tar", "docker-archive:a.tar", ""},
		{"docker-archive:a.tar:localhost/x:1", "docker-archive:a.tar:localhost/x:1", ""},
		{"./x.sqsh", "./x.sqsh", ""},
		{"/a/x.sif", "/a/x.sif", ""},
		{"docker://x.sqsh", "docker.io/library/x.sqsh:latest", ""},
		{"quay.io/a/x.sqsh", "quay.io/a/x.sqsh:latest", ""},
	} {
		t.Run(test.in, func(t *testing.T) {
			ref, err := ParseReference(test.in)
			if err != nil {
				t.Fatal(err)
			}
			if got := ref.String(); got != test.want || ref.User() != test.user {
				t.Errorf("got %q by %q, want %q by %q", got, ref.User(), test.want, test.user)
			}
			again, err := ParseReference(strings.Replace(test.want, "docker.io/library/x.sqsh", "docker://x.sqsh", 1))
			if err != nil || again.String() != strings.Replace(test.want, "docker://", "", 1) {
				t.Errorf("canonical form reads back as %q, %v", again, err)
			}
		})
	}
}

func TestParseReferenceErrors(t *testing.T) {
	for _, test := range []struct{ in, cause, remedy string }{
		{"", "empty", "REGISTRY"},
		{"x.sqsh", "not as a file", "did you mean ./x.sqsh?"},
		{"images/x.sif", "not as a file", "did you mean ./images/x.sif?"},
		{"Debian", "lower case: library/debian", ""},
		{"debian:", "tag after the colon is empty", ""},
		{"@debian", "user before @ is empty", ""},
		{"quay.io/", "name is empty", ""},
		{"debian:a b", "tag", ""},
		{"debian@sha256:abc", "not a digest", ""},
		{"debian@sha512:" + strings.Repeat("ab", 64), "not a digest", ""},
		{"debian@" + strings.ToUpper(testDigest), "", ""},
		{"http://host/x", "http: is not supported", ""},
		{"oci:", "missing", ""},
		{"oci:dir:", "missing", ""},
		{"docker-archive:a.tar@" + testDigest, "not digests", ""},
		{"a\x1b[31m/b", "", ""},
	} {
		t.Run(test.in, func(t *testing.T) {
			_, err := ParseReference(test.in)
			if err == nil {
				t.Fatal("no error")
			}
			if !strings.Contains(err.Error(), test.cause) || !strings.Contains(fault.Remedy(err), test.remedy) {
				t.Errorf("got %q, remedy %q; want %q, %q", err, fault.Remedy(err), test.cause, test.remedy)
			}
			if fault.Of(err) != fault.User || fault.Remedy(err) == "" {
				t.Errorf("blame %v, remedy %q", fault.Of(err), fault.Remedy(err))
			}
			if strings.Contains(err.Error(), "\x1b") {
				t.Error("the message can write to the terminal")
			}
		})
	}
}

// TestReferenceGrammar goes through all forms that users of Slurm's container
// options write, with and without every part.
func TestReferenceGrammar(t *testing.T) {
	digest := "@" + testDigest
	for name, canonical := range map[string]string{
		"debian": "docker.io/library/debian", "team/tool": "docker.io/team/tool", "a/b/c": "docker.io/a/b/c",
		"docker.io/debian": "docker.io/library/debian", "docker.io/team/tool": "docker.io/team/tool", "docker.io#debian": "docker.io/library/debian",
		"docker.io/library/debian": "docker.io/library/debian", "index.docker.io/debian": "docker.io/library/debian", "registry-1.docker.io#a/b": "docker.io/a/b",
		"quay.io/a/b": "quay.io/a/b", "quay.io/debian": "quay.io/debian", "quay.io#a/b": "quay.io/a/b", `quay.io\#a/b`: "quay.io/a/b",
		"node1:5000/x": "node1:5000/x", "node1:5000#x": "node1:5000/x", "localhost/x": "localhost/x", "localhost:5000/x": "localhost:5000/x",
		"registry#x": "registry#x", "registry#a/b": "registry#a/b", "127.0.0.1/x": "127.0.0.1/x", "[::1]:5000/x": "[::1]:5000/x",
		"localhosts/x": "docker.io/localhosts/x", "shaman": "docker.io/library/shaman",
	} {
		for _, scheme := range []string{"", "docker://"} {
			for _, user := range []string{"", "me@", "$oauthtoken@", "me@site.org@", "a+b!~*'()%;&=,-_.@"} {
				for suffix, end := range map[string]string{"": ":latest", ":1.20-a_B": ":1.20-a_B", digest: digest, ":1" + digest: ":1" + digest} {
					in := scheme + user + name + suffix
					ref, err := ParseReference(in)
					if err != nil || ref.Kind() != Registry || ref.String() != canonical+end || ref.User() != strings.TrimSuffix(user, "@") {
						t.Errorf("%s: %v of %q, %v; want %s%s", in, ref, ref.User(), err, canonical, end)
					}
				}
			}
		}
	}
}

// TestReferenceClasses reads the table that the plugin's own test reads, too:
// both have to agree on what is a path, and on what is refused at once.
func TestReferenceClasses(t *testing.T) {
	raw, err := os.ReadFile("../spank/tests/testdata/references.txt")
	must(t, err)
	for line := range strings.Lines(string(raw)) {
		class, value, ok := strings.Cut(strings.TrimSuffix(line, "\n"), " ")
		if !ok || class == "#" {
			continue
		}
		ref, err := ParseReference(value)
		got := "refused"
		switch {
		case err != nil && strings.Contains(fault.Remedy(err), "did you mean ./"+value):
			got = "file"
		case err == nil && ref.Kind() == Registry:
			got = "registry"
		case err == nil && ref.Kind() == Path:
			got = "path"
		case err == nil:
			got = "layers"
		}
		if got != class && (got != "refused" || class != "wrong") {
			t.Errorf("%q is %s (%v), not %s", value, got, err, class)
		}
	}
}
