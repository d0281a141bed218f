package doctor

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/berth-hpc/berth/policy"
)

func writeKey(t *testing.T, dir, name string, curve elliptic.Curve) string {
	t.Helper()
	private, err := ecdsa.GenerateKey(curve, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKIXPublicKey(private.Public())
	if err != nil {
		t.Fatal(err)
	}
	return writeText(t, dir, name, string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})))
}

func writeText(t *testing.T, dir, name, text string) string {
	t.Helper()
	path := filepath.Join(dir, name)
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

// What keeps rules that want signatures from letting any image pass.
func TestSignatureRules(t *testing.T) {
	dir := t.TempDir()
	if out, err := exec.Command("go", "build", "-o", filepath.Join(dir, "berth-verify"), "../../berth-verify").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	good := writeKey(t, dir, "good.pub", elliptic.P256())
	other := writeKey(t, dir, "p224.pub", elliptic.P224())
	text := writeText(t, dir, "text.pub", "no key")
	root := writeText(t, dir, "trusted_root.json", "{}")
	for _, tt := range []struct {
		name           string
		signedBy       []string
		change         func(*Node)
		keys, verifier string // what the finding says; "" for a good one
	}{
		{"good", []string{good}, func(*Node) {}, "", ""},
		{"missing key", []string{good, dir + "/none.pub"}, func(*Node) {}, `rule "ours" (/etc/berth/berth.toml): no image passes it: open ` + dir + "/none.pub", ""},
		{"no key", []string{text}, func(*Node) {}, "it is no public key in PEM", ""},
		{"a key of another kind", []string{other}, func(*Node) {}, "", "no signature can be verified"},
		{"no verifier", []string{good}, func(n *Node) { n.Libexec = dir + "/none" }, "", dir + "/none/berth-verify: no such file"},
		{"no folder", []string{good}, func(n *Node) { n.Policy.Signatures = dir + "/none" }, "", "policy.signatures: open " + dir + "/none"},
		{"no trusted root", []string{good}, func(n *Node) { n.Policy.TrustedRoot = dir + "/none.json" }, "policy.trusted_root: no signature counts", ""},
		{"another file as trusted root", []string{good}, func(n *Node) { n.Policy.TrustedRoot = root }, "", "read the trusted root"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			n := testNode(t)
			n.Libexec = dir
			n.Policy.Rules = []policy.Rule{{Name: "ours", From: "/etc/berth/berth.toml", SignedBy: tt.signedBy}}
			tt.change(n)
			checkFinding(t, checkKeys(t.Context(), n), tt.keys)
			checkFinding(t, checkVerifier(t.Context(), n), tt.verifier)
		})
	}
	n := testNode(t)
	n.Policy.Rules = []policy.Rule{{Name: "all"}}
	if found := append(checkKeys(t.Context(), n), checkVerifier(t.Context(), n)...); len(found) > 0 {
		t.Errorf("without such a rule: %+v", found)
	}
}

// checkFinding wants one good finding, or one failure with these words.
func checkFinding(t *testing.T, found []Finding, failure string) {
	t.Helper()
	switch {
	case len(found) != 1 || (found[0].Status == OK) != (failure == ""):
		t.Errorf("%+v, want %q", found, failure)
	case !strings.Contains(found[0].Detail, failure) || failure != "" && found[0].Remedy == "":
		t.Errorf("%+v, want %q", found[0], failure)
	}
}

func TestAccountRules(t *testing.T) {
	for conf, want := range map[string]Status{
		"": Warn, "AccountingStorageEnforce=none": Warn, "AccountingStorageEnforce=Associations": OK, "AccountingStorageEnforce=limits,qos": OK,
	} {
		n := testNode(t)
		n.SlurmConf = writeText(t, t.TempDir(), "slurm.conf", conf+"\n")
		if found := checkAccounts(t.Context(), n); found != nil {
			t.Errorf("without such a rule: %+v", found)
		}
		n.Policy.Rules = []policy.Rule{{Name: "bio", Accounts: []string{"bio"}}}
		if found := checkAccounts(t.Context(), n); len(found) != 1 || found[0].Status != want {
			t.Errorf("%q: %+v", conf, found)
		}
	}
}
