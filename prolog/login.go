package prolog

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"

	"github.com/berth-hpc/berth/imagecache/credentials"
)

// A LoginRequest is what root asks of `berth node credentials`, as one JSON
// value on its standard input. Home is what the system's user database says.
type LoginRequest struct {
	Registry   string `json:"registry"`
	Repository string `json:"repository"`
	User       string `json:"user,omitempty"` // the login's name, "" for any
	Home       string `json:"home"`
}

// AnswerLogin is `berth node credentials`, which only root starts. It runs as
// the user whose job wants an image, in pid, net and ipc namespaces of its own
// and with a fixed environment, and reads the files in which that user's
// logins are: no helper program, no variable, nothing else. in is its standard
// input, out its descriptor 3. Whoever started it kills it when it takes too
// long: a home folder may be on a server that is gone.
func AnswerLogin(ctx context.Context, in io.Reader, out io.Writer) error {
	if err := credentials.Guard(); err != nil {
		return err
	}
	var req LoginRequest
	if err := json.NewDecoder(io.LimitReader(in, 4*maxReference)).Decode(&req); err != nil {
		return fmt.Errorf("read the request: %w", err)
	}
	k := &credentials.Keychain{Places: credentials.HomePlaces(req.Home, os.Getuid())}
	login, err := k.Login(ctx, credentials.Target{Registry: req.Registry, Repository: req.Repository, User: req.User})
	return credentials.WriteAnswer(out, login, err)
}
