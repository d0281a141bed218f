package doctor

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/berth-hpc/berth/imagecache/cosign"
	"github.com/berth-hpc/berth/policy"
)

// signingRules are the rules that want signatures.
func signingRules(n *Node) (rules []policy.Rule) {
	for _, r := range n.Policy.Rules {
		if len(r.SignedBy) > 0 {
			rules = append(rules, r)
		}
	}
	return rules
}

// checkKeys reads what root reads before it has a signature verified.
func checkKeys(_ context.Context, n *Node) (found []Finding) {
	rules := signingRules(n)
	for _, r := range rules {
		for _, path := range r.SignedBy {
			if _, err := cosign.ReadKey(path); err != nil {
				found = append(found, one(Fail, fmt.Sprintf("%s: no image passes it: %s", r.String(), oneLine(err)), "correct its signed_by, or have a public key there, as cosign generate-key-pair writes it")...)
			}
		}
	}
	if path := n.Policy.TrustedRoot; path != "" && len(rules) > 0 {
		if _, err := cosign.ReadTrustedRoot(path); err != nil {
			found = append(found, one(Fail, "policy.trusted_root: no signature counts: "+oneLine(err), "correct it, or make that file: cosign trusted-root create")...)
		}
	}
	if len(rules) > 0 && found == nil {
		return good(fmt.Sprintf("the keys of %d rules can be read", len(rules)))
	}
	return found
}

// checkVerifier has berth-verify take the keys, as the account.
func checkVerifier(ctx context.Context, n *Node) []Finding {
	rules := signingRules(n)
	if len(rules) == 0 {
		return nil
	}
	if folder := n.Policy.Signatures; folder != "" {
		if _, err := os.ReadDir(folder); err != nil {
			return one(Fail, "policy.signatures: "+oneLine(err), "make that folder, readable to account "+n.Account)
		}
	}
	var req cosign.Request
	for _, r := range rules {
		for _, path := range r.SignedBy {
			if text, err := cosign.ReadKey(path); err == nil { // else checkKeys says so, or it is root's alone
				req.Keys = append(req.Keys, text)
			}
		}
	}
	if text, err := cosign.ReadTrustedRoot(n.Policy.TrustedRoot); err == nil {
		req.TrustedRoot = text
	}
	path := filepath.Join(n.Libexec, "berth-verify")
	if err := tryVerifier(ctx, path, req); err != nil {
		return one(Fail, "no signature can be verified: "+oneLine(err), "install Berth whole; and see that its keys are ECDSA, RSA or Ed25519, and policy.trusted_root is a trusted_root.json of Sigstore")
	}
	return good(path)
}

func tryVerifier(ctx context.Context, path string, req cosign.Request) error {
	input, err := json.Marshal(req)
	if err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, path)
	cmd.Env, cmd.Stdin = []string{}, bytes.NewReader(input)
	out, err := cmd.CombinedOutput()
	if err != nil {
		return fmt.Errorf("%w %s", err, bytes.TrimSpace(out))
	}
	var answer cosign.Answer
	return json.Unmarshal(out, &answer)
}

// checkAccounts: a rule for accounts is worth what Slurm lets users name.
func checkAccounts(_ context.Context, n *Node) []Finding {
	return withSlurm(n, func(c *slurmConf) []Finding {
		var names []string
		for _, r := range n.Policy.Rules {
			if len(r.Accounts) > 0 {
				names = append(names, r.String())
			}
		}
		if len(names) == 0 {
			return nil
		}
		enforced := c.flags("AccountingStorageEnforce")
		for _, flag := range []string{"associations", "limits", "qos", "safe", "wckeys", "all", "1", "2"} { // each implies the first
			if enforced[flag] {
				return good("accounts are those that Slurm knows of a user")
			}
		}
		return one(Warn, "users may name any account, and so choose: "+strings.Join(names, ", "), "AccountingStorageEnforce=associations in slurm.conf")
	})
}
