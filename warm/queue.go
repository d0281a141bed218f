package warm

import (
	"regexp"
	"strings"

	"github.com/berth-hpc/berth/imagecache"
	"github.com/berth-hpc/berth/prolog/jobstate"
)

// SqueueFormats are squeue -O's, of what ParseQueue reads: the column's name
// depends on the release, and one that squeue does not know it leaves out.
// Numbers come first, since nobody but Slurm writes them; the widths are in
// characters.
var SqueueFormats = []string{"JobID:20,UserID:20,GroupID:20,admin_comment:4096", "JobID:20,UserID:20,GroupID:20,AdminComment:4096"}

// HasComments says whether text, which squeue printed with its header, has that
// column.
func HasComments(text string) bool {
	header, _, _ := strings.Cut(text, "\n")
	return strings.Contains(header, "COMMENT")
}

var (
	queueLine = regexp.MustCompile(`^(\d{1,10}) +(\d{1,10}) +(\d{1,10})(?: +(.*))?$`)
	queueNote = regexp.MustCompile(`(?:^|\s)berth=(\S+)`)
)

// Bounds says how much of a queue is looked at: different images, and how many
// of them may be one user's.
type Bounds struct{ Images, PerUser int }

// Waiting is what a job that waits will need.
type Waiting struct {
	Job      jobstate.JobID // the first that does
	UID, GID string         // numbers
	Entry    Entry
}

// ParseQueue reads what squeue prints in one of SqueueFormats, the next job first: the
// images that spank/job_submit.lua noted in AdminComments. All of that is users'
// data. What cannot be read is skipped: it may be anybody's comment. skipped is
// how many images more there were than b allows.
func ParseQueue(text string, b Bounds) (jobs []Waiting, skipped int) {
	seen := map[string]bool{}
	perUser := map[string]int{}
	for line := range strings.Lines(text) {
		m := queueLine.FindStringSubmatch(strings.TrimSpace(line))
		if m == nil {
			continue
		}
		note := queueNote.FindStringSubmatch(m[4])
		if note == nil {
			continue
		}
		job, err := jobstate.ParseJobID(m[1])
		if err != nil {
			continue
		}
		e, err := noted(note[1])
		if err != nil {
			continue
		}
		// What one user's job may not have another's may.
		key := m[2] + " " + e.Name()
		if seen[key] {
			continue
		}
		if len(jobs) >= b.Images || perUser[m[2]] >= b.PerUser {
			skipped++
			continue
		}
		seen[key], perUser[m[2]] = true, perUser[m[2]]+1
		jobs = append(jobs, Waiting{Job: job, UID: m[2], GID: m[3], Entry: e})
	}
	return jobs, skipped
}

// noted reads IMAGE or IMAGE@DIGEST.
func noted(text string) (Entry, error) {
	e, err := newEntry("the queue", text)
	if err != nil {
		return e, err
	}
	e.Digest = e.Ref.Digest()
	return e, nil
}

// ForMachine says whether an entry is for machines like this one.
func (e Entry) ForMachine() bool {
	if e.Platform == "" {
		return true
	}
	p, err := imagecache.ParsePlatform(e.Platform)
	return err == nil && p == imagecache.HostPlatform()
}
