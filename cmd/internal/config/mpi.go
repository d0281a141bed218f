package config

import (
	"fmt"
	"path/filepath"
)

// MPI says how containers get along with a launcher's and a host's MPI.
type MPI struct {
	Check         bool     // compare the image's MPI with what the launcher offers
	HostLibraries []string // files, or patterns of them, for those who want the host's MPI
	HostFolders   []string // shown at the same path for them
	HostEnv       []string // NAME=VALUE
}

func mpiSettings() []Setting {
	return []Setting{
		{
			Key: "mpi.check", Open: true,
			Doc: "Whether steps of several tasks are warned, before they start, when the MPI in their image cannot learn its rank from what the launcher offers (srun --mpi=...), so that each task would be rank 0 of 1.",
			at:  func(c *Config, _ string) any { return &c.MPI.Check },
		},
		{
			Key: "mpi.host_libraries", check: libraryList, Example: `["/opt/ompi/lib/lib*.so.*", "/usr/lib64/libfabric.so.1"]`,
			Doc: "Libraries of the host that take the place of the image's where the user asks for it (berth run --host-mpi, --container-host-mpi): files or patterns, libmpi and all that it needs beyond the C library. A container that they do not fit is refused, with the reason.",
			at:  func(c *Config, _ string) any { return &c.MPI.HostLibraries },
		},
		{
			Key: "mpi.host_folders", check: absoluteList, Example: `["/opt/ompi/lib/openmpi", "/opt/ompi/share"]`,
			Doc: "Folders that come with them, read-only and at the same path, such as those of plugins.",
			at:  func(c *Config, _ string) any { return &c.MPI.HostFolders },
		},
		{
			Key: "mpi.host_env", check: variableList, Example: `["OPAL_PREFIX=/opt/ompi"]`,
			Doc: "Variables that come with them, as NAME=VALUE.",
			at:  func(c *Config, _ string) any { return &c.MPI.HostEnv },
		},
	}
}

func defaultMPI() MPI { return MPI{Check: true} }

func libraryList(value any) error {
	for _, p := range value.([]string) {
		if _, err := filepath.Match(p, ""); err != nil {
			return fmt.Errorf("%q: %w", p, err)
		}
	}
	return absoluteList(value)
}
