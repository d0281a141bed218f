package jobstate

import "github.com/berth-hpc/berth/policy"

// Facts are what job.json has.
type Facts struct {
	UID uint32     `json:"uid"` // the job's number may come again
	Job policy.Job `json:"job"`
}

const factsFile = "job.json"

// SetFacts writes down what is known of a job, whose folder exists.
func SetFacts(runDir string, job JobID, f Facts) error {
	dir := Folder{JobDir(runDir, job)}
	return dir.write(factsFile, f)
}

// KnownJob is what was written down for a job of uid's; nil for nothing.
func KnownJob(runDir string, job JobID, uid uint32) *policy.Job {
	var f Facts
	err := Folder{JobDir(runDir, job)}.read(factsFile, &f)
	if err != nil || f.UID != uid || f.Job.Partition == "" {
		return nil
	}
	return &f.Job
}

// AccountOf is the account of a job, "" where it is not known.
func AccountOf(runDir string, job JobID, uid uint32) string {
	if known := KnownJob(runDir, job, uid); known != nil {
		return known.Account
	}
	return ""
}
