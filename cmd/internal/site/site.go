// Package site puts what the admin set about containers into the launcher's
// form, for `berth run` and for the helper of Slurm's steps alike.
package site

import (
	"github.com/berth-hpc/berth/cmd/internal/config"
	"github.com/berth-hpc/berth/launcher"
)

// Of returns the settings that hold whatever a job says.
func Of(c *config.Container) launcher.Site {
	return launcher.Site{
		Mounts: c.Mounts,
		Rules: launcher.MountRules{
			Forbid: !c.UserMounts, Allow: c.UserMountsAllow, Deny: c.UserMountsDeny, ReadOnly: c.UserMountsReadOnly,
		},
		MountTimeout: c.MountTimeout, SubIDMounts: c.SubMounts, Volumes: c.Volumes,
		Env: launcher.EnvRules{Set: c.EnvSet, Keep: c.EnvKeep, Drop: c.EnvDrop},
	}
}

// Kept says where jobs' containers with a name are, and for how long.
func Kept(c *config.Container) launcher.Kept {
	return launcher.Kept{
		Folder: c.NamesDir, OfJob: c.NamesScope == config.ScopeJob,
		Expiry: c.NamesExpiry, Quota: int64(c.NamesQuota),
	}
}
