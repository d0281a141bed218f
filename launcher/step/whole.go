package step

import (
	"context"
	"strings"

	"github.com/berth-hpc/berth/fault"
	"github.com/berth-hpc/berth/launcher"
	"github.com/berth-hpc/berth/launcher/wire"
)

// ParseWhole reads a request for a container of a whole job: that of a step,
// without its number and its count of tasks. The job's id is not looked at; it
// is the caller's.
func ParseWhole(m wire.Message) (*Request, error) {
	id := m.Get("job")
	for key, value := range map[string]string{"job": "0", "step": "0", "tasks": "1"} {
		m = append(m[:len(m):len(m)], wire.Record{Key: key, Value: value})
	}
	r, err := parseRequest(m)
	if err != nil {
		return nil, err
	}
	r.ID = id
	r.Entrypoint = new(bool) // no task of Slurm's is there that could run it
	r.Env = strings.FieldsFunc(strings.Join(r.Env, ","), func(c rune) bool { return c == ',' })
	return r, nil
}

// Make makes the one container that all tasks of a job share on this node,
// from the view of the node that the caller has. progress gets lines for the
// user while the image is waited for. The error is a fault.
func Make(ctx context.Context, req *Request, job launcher.Job, node Node, set Settings, progress func(line string)) (*launcher.Container, *launcher.UserNamespaces, error) {
	report := newReport(req, set)
	container, users, err := makeWhole(ctx, report, job, node, set, progress)
	report.Container, report.Err = container, err
	node.Report(report)
	return container, users, err
}

func makeWhole(ctx context.Context, report *Report, job launcher.Job, node Node, set Settings, progress func(line string)) (*launcher.Container, *launcher.UserNamespaces, error) {
	req := report.Request
	image, err := req.image(set, func() (Image, error) { return node.Image(ctx, req, absent(progress)) })
	report.waited()
	if err != nil {
		return nil, nil, err
	}
	users, err := node.UserNamespaces(ctx, req.Job, req.User)
	if err != nil {
		return nil, nil, namespacesFault(err)
	}
	created := report.building()
	c, err := build(ctx, req, &view{job: job}, users, image, node, set)
	created()
	if err != nil {
		users.Close()
		return nil, nil, err
	}
	return c, users, nil
}

// absent is the User of a job whose tasks are not there yet.
type absent func(line string)

// Tell implements User.
func (a absent) Tell(line string) { a(line) }

// Login implements User.
func (absent) Login(context.Context) (string, error) { return "", ErrNoSession }

func namespacesFault(err error) error {
	return fault.Wrap("create user namespaces", "", fault.Site,
		"see whether the node allows user namespaces: sysctl user.max_user_namespaces", err)
}
