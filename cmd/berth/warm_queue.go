package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/berth-hpc/berth/fault"
	"github.com/berth-hpc/berth/imagecache"
	"github.com/berth-hpc/berth/prolog"
	"github.com/berth-hpc/berth/prolog/jobstate"
	"github.com/berth-hpc/berth/warm"
)

// queueLoad is --max-load where nothing is said: nodes that compute have a load
// of one for each CPU, and that is no reason to leave their next images.
const queueLoad = 1.25

// queue warms what the jobs that wait in Slurm will need on this node.
func (c *warmCmd) queue(ctx context.Context, s *session) error {
	if c.From != "" || len(c.File) > 0 || c.elsewhere() || c.Lock != "" {
		return fault.Wrap("warm", "", fault.User, "it is for this machine, and takes no list: berth warm --queue", errors.New("--queue stands alone"))
	}
	site, err := s.site()
	if err != nil {
		return err
	}
	text, err := s.pending(ctx)
	if err != nil {
		return err
	}
	jobs, skipped := warm.ParseQueue(text, warm.Bounds{Images: c.MaxImages, PerUser: c.MaxPerUser})
	result := &warmResult{Skipped: skipped}
	if c.DryRun {
		for _, j := range jobs {
			fmt.Fprintf(s.stdout, "job %s of user %s: %s\n", j.Job, j.UID, j.Entry.Name())
		}
		return nil
	}
	if c.MaxLoad == 0 {
		c.MaxLoad = queueLoad
	}
	q := &queueWarmer{nodeWarmer{s: s, site: site, rate: c.rate()}, map[string]jobstate.Request{}}
	var entries []warm.Entry
	for _, j := range jobs {
		e := j.Entry
		if c.KeepFor > 0 {
			e.Keep.For = c.KeepFor
		}
		e.From = j.UID + " " + string(j.Job) // one entry for each user
		if q.jobs[e.From], err = request(j); err == nil {
			entries = append(entries, e)
		}
	}
	c.here(ctx, s, q, entries, result)
	if skipped > 0 {
		s.log.Infof("%d more images wait: the next run looks at them", skipped)
	}
	return c.finish(s, result, nil)
}

func request(j warm.Waiting) (jobstate.Request, error) {
	r := jobstate.Request{Job: j.Job}
	uid, err := strconv.ParseUint(j.UID, 10, 32)
	if err != nil {
		return r, err
	}
	gid, err := strconv.ParseUint(j.GID, 10, 32)
	r.UID, r.GID = uint32(uid), uint32(gid)
	return r, err
}

// pending asks squeue for the jobs that wait in this node's partitions, the
// next one first. A machine that is no node hears of all.
func (s *session) pending(ctx context.Context) (string, error) {
	args := []string{"-t", "PENDING", "--sort=-p,i"}
	host, err := os.Hostname()
	if err != nil {
		return "", err
	}
	short, _, _ := strings.Cut(host, ".")
	if text, err := s.ask(ctx, "", "sinfo", "-h", "-n", short, "-o", "%R"); err == nil && strings.TrimSpace(text) != "" {
		args = append(args, "-p", strings.Join(strings.Fields(text), ","))
	}
	for _, format := range warm.SqueueFormats {
		text, err := s.ask(ctx, "", "squeue", append(args, "-O", format)...)
		if err == nil && warm.HasComments(text) {
			return text, nil
		}
		if err != nil && format == warm.SqueueFormats[len(warm.SqueueFormats)-1] {
			return "", err
		}
	}
	return "", fault.Wrap("run", "squeue", fault.Site, "see squeue --helpFormat, or use lists: berth warm -f", errors.New("it knows no column with AdminComments"))
}

// queueWarmer is nodeWarmer on behalf of jobs' users: by the site's policy for
// each of them, and by nobody's login.
type queueWarmer struct {
	nodeWarmer
	jobs map[string]jobstate.Request // by Entry.From
}

// has implements warmer. Here an entry's digest is its user's word.
func (q *queueWarmer) has(e warm.Entry) bool { return !e.Digest.IsZero() && q.nodeWarmer.has(e) }

// warm implements warmer. A digest that the node has costs nothing; any other the
// registry has to know, since it may be an index's.
func (q *queueWarmer) warm(ctx context.Context, e warm.Entry, watch imagecache.ProgressFunc) (prolog.Warmed, error) {
	g := prolog.Warming{
		Image: e.Name(), Digest: e.Digest, Rate: q.rate, Keep: e.Keep.From(time.Now()), Progress: watch, For: q.jobs[e.From],
	}
	if !q.has(e) {
		d, err := prolog.Digested(ctx, q.s.log, q.site, g)
		if err != nil {
			return prolog.Warmed{}, err
		}
		g.Digest = d
	}
	return prolog.Warm(ctx, q.s.log, q.site, g)
}
