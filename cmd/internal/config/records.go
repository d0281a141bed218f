package config

import (
	"errors"
	"path/filepath"
	"time"
)

// Records say what a node keeps of the steps that ran on it, and where it says so.
type Records struct {
	Keep     time.Duration
	Jobs     int
	Size     Size
	Textfile string // "" for below the store
}

// Log says where a node's programs log, besides the files of the run folder.
type Log struct {
	To string
}

// What Log.To may be.
const (
	LogAuto    = "auto"
	LogJournal = "journald"
	LogSyslog  = "syslog"
	LogFiles   = "files"
)

func recordSettings() []Setting {
	return []Setting{
		{
			Key: "records.keep", check: notNegative,
			Doc: "How long a node keeps the records of a job (berth record) after its last step. 0s is for ever.",
			at:  func(c *Config, _ string) any { return &c.Records.Keep },
		},
		{
			Key: "records.jobs", check: between(0, 1_000_000),
			Doc: "Of how many jobs a node keeps records; the oldest go. 0 is no limit.",
			at:  func(c *Config, _ string) any { return &c.Records.Jobs },
		},
		{
			Key: "records.size",
			Doc: "How much all records of a node may take; the oldest go. One job's take 2 MB at most. 0B is no limit.",
			at:  func(c *Config, _ string) any { return &c.Records.Size },
		},
		{
			Key: "records.textfile", check: textfile, Example: `"/var/lib/prometheus/node-exporter/berth.prom"`,
			Doc: "Where a node writes its counts for the textfile collector of Prometheus's node_exporter: a file that ends with .prom. Empty, it is records/berth.prom below store.dir.",
			at:  func(c *Config, _ string) any { return &c.Records.Textfile },
		},
		{
			Key: "log.to", check: oneOf(LogAuto, LogJournal, LogSyslog, LogFiles),
			Doc: "Where a node's programs log besides the files below node.run_dir: journald, syslog (/dev/log), or nowhere (files). auto is journald where that runs, else syslog. None of them is waited for: what it does not take at once is left out.",
			at:  func(c *Config, _ string) any { return &c.Log.To },
		},
	}
}

func defaultRecords() Records {
	return Records{Keep: 30 * 24 * time.Hour, Jobs: 10_000, Size: 200e6}
}

func textfile(value any) error {
	if path := value.(string); path == "" || filepath.IsAbs(path) && filepath.Ext(path) == ".prom" {
		return nil
	}
	return errors.New("want an absolute path that ends with .prom")
}
