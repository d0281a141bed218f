package config

import "golang.org/x/sys/unix"

// leastMemory is what every container takes, in bytes: mount points, accounts
// and libcontainer's state.
const leastMemory = 1 << 20

// MemoryLimit is how much changes to a root file system may take in memory, in
// bytes, for a job that may use so many on this machine; 0 where nothing
// bounds it. The answer 0 is no limit.
func (c *Container) MemoryLimit(job int64) int64 {
	var info unix.Sysinfo_t
	if job == 0 && unix.Sysinfo(&info) == nil {
		job = int64(info.Totalram) * int64(info.Unit)
	}
	limit := c.Memory.Of(job)
	if limit > 0 {
		limit = max(limit, leastMemory)
	}
	return limit
}
