package e2e

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"strings"
	"testing"
)

// byAccount is a policy on what Slurm says of jobs.
const byAccount = `
[policy]
default = "deny"
contact = "hpc@example.org"
[[policy.rule]]
name = "bio on gpu"
images = ["*"]
accounts = ["Bio"]
partitions = ["gpu"]
action = "allow"
[container]
`

// A job's account and partition are those that Slurm knows, however the job
// came to its image, and whatever its user puts into its environment.
func TestAccountsOfJobs(t *testing.T) {
	s := newSite(t, withConfig(byAccount), withConf("PartitionName=gpu Nodes=n[1-3] MaxTime=60 State=UP"))
	// What each form has in its environment; scripts of sbatch begin with it.
	const forged = "export SLURM_JOB_ACCOUNT=bio SLURM_JOB_PARTITION=gpu SPANK_SLURM_JOB_ACCOUNT=bio SPANK_SLURM_JOB_PARTITION=gpu " +
		"SLURM_SPANK_SLURM_JOB_ACCOUNT=bio SLURM_SPANK_SLURM_JOB_PARTITION=gpu; "
	const denied = "the site's policy: no rule allows it, and policy.default (/etc/berth/berth.toml) denies"
	of := "--container-image=" + tiny + " sh -c 'test -e /bin/busybox && echo ran'"
	inside := strings.ReplaceAll(of, "'", "\\\"")
	for _, tc := range []struct {
		name, script, says string // "" for what is allowed
	}{
		{"theirs", "srun -N2 -A bio -p gpu " + of, ""},
		{"theirs, in a step", "salloc -A bio -p gpu sh -c \"srun true; srun " + inside + "\"", ""},
		{"theirs, in an array", "sbatch -W --array=1-2 -A bio -p gpu -o /shared/array.%a --wrap \"srun " + of + "\" >/dev/null; cat /shared/array.*", ""},
		{"no account", forged + "srun -p gpu " + of, denied},
		{"another account", forged + "srun -A theo -p gpu " + of, denied},
		{"another partition", forged + "srun -A bio -p main " + of, denied},
		{"another account, in a step", "salloc -A theo -p gpu sh -c \"" + forged + "srun true; srun " + inside + "\"", denied},
		{"an account with the line of another", "salloc -p gpu -A $'x\\n'$(cat /shared/next)'|gpu|bio' sh -c \"srun true; srun " + inside + "\"", "want one line JOB|PARTITION|ACCOUNT"},
		{"exported", "srun -A theo -p gpu --export=ALL,SLURM_JOB_ACCOUNT=bio,SLURM_JOB_PARTITION=gpu " + of, denied},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s := s.With(t)
			// A job before this one, so that it knows its number beforehand.
			s.MustRun(t.Context(), "ctl", "alice", "bash", "-c", "srun -p gpu bash -c 'echo $((SLURM_JOB_ID + 1)) >/shared/next'")
			r := s.Run(t.Context(), "ctl", "alice", "bash", "-c", "cd ~; "+tc.script)
			ran := times("^ran$", r.Stdout) > 0
			if ran != (tc.says == "") || !strings.Contains(r.Stderr, tc.says) || !ran && r.Code == 0 {
				t.Errorf("want %q: %v", tc.says, r)
			}
		})
	}
	s.clean(t)
}

// TestSignedImages: a rule wants signatures, on a real cluster.
func TestSignedImages(t *testing.T) {
	key := newSigningKey(t)
	s := newSite(t, withConfig(signedPolicy), func(set *setup) {
		set.Cluster.Files = append(set.Cluster.Files, key.file+":/etc/berth/keys/ours.pub")
	})
	digest := strings.TrimSpace(s.as(t, "alice", "berth resolve "+tiny).Stdout)
	for _, tc := range []struct{ name, script string }{
		{"unsigned", "srun -N1 -w n1 --container-image=" + tiny + " echo ran"},
		{"unsigned, in a batch job", "sbatch -W -w n1 -o /shared/out --container-image=" + tiny + " --wrap 'echo ran' >/dev/null; cat /shared/out >&2; false"},
	} {
		r := s.as(t, "alice", tc.script)
		if r.Code == 0 || !strings.Contains(r.Stderr, `the site's policy: no key that rule "ours" (/etc/berth/berth.toml) names has signed it`) || times("^ran$", r.Stdout+r.Stderr) > 0 {
			t.Errorf("%s: %v", tc.name, r)
		}
	}
	s.idle(t) // no node was drained for it
	for _, node := range nodes {
		s.With(t).MustRun(t.Context(), node, "root", "sh", "-c", "mkdir -p /etc/berth/signatures && printf %s '"+key.signature(t, digest)+
			"' >/etc/berth/signatures/"+strings.Replace(digest, ":", "-", 1)+".json")
	}
	if r := s.as(t, "alice", "srun -N3 --container-image="+tiny+" echo ran"); times("^ran$", r.Stdout) != 3 {
		t.Errorf("signed: %v", r)
	}
	s.clean(t)
}

const signedPolicy = `
[policy]
signatures = "/etc/berth/signatures"
[[policy.rule]]
name = "ours"
images = ["10.97.0.1:5000/*"]
action = "allow"
signed_by = ["/etc/berth/keys/ours.pub"]
[container]
`

// A signingKey signs as cosign sign --key --bundle does.
type signingKey struct {
	private *ecdsa.PrivateKey
	file    string // the public key
}

func newSigningKey(t *testing.T) signingKey {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	public, err := x509.MarshalPKIXPublicKey(private.Public())
	if err != nil {
		t.Fatal(err)
	}
	return signingKey{private, writeFile(t, "ours.pub", string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: public})))}
}

// signature is a Sigstore bundle for digest.
func (k signingKey) signature(t *testing.T, digest string) string {
	t.Helper()
	const kind = "application/vnd.in-toto+json"
	statement := fmt.Sprintf(`{"_type":"https://in-toto.io/Statement/v1","subject":[{"digest":{"sha256":"%s"}}],"predicateType":"https://sigstore.dev/cosign/sign/v1","predicate":{}}`,
		strings.TrimPrefix(digest, "sha256:"))
	sum := sha256.Sum256(fmt.Appendf(nil, "DSSEv1 %d %s %d %s", len(kind), kind, len(statement), statement))
	signature, err := ecdsa.SignASN1(rand.Reader, k.private, sum[:])
	if err != nil {
		t.Fatal(err)
	}
	text := base64.StdEncoding.EncodeToString
	return fmt.Sprintf(`{"mediaType":"application/vnd.dev.sigstore.bundle.v0.3+json","verificationMaterial":{"publicKey":{"hint":"k"}},`+
		`"dsseEnvelope":{"payload":"%s","payloadType":"%s","signatures":[{"sig":"%s"}]}}`, text([]byte(statement)), kind, text(signature))
}
