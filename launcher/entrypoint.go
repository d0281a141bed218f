package launcher

import "time"

// EntrypointFolder is what a container has whose image's entrypoint is run
// before its tasks; launcher/join/variables.h says what is in it.
const EntrypointFolder = "/.berth-entrypoint"

// An Entrypoint asks for a container in which the first task of a step runs
// the image's entrypoint, and all tasks get its variables.
type Entrypoint struct {
	// Ready is the program that the entrypoint gets as its command, a file of
	// the node's: berth-ready.
	Ready string `json:"ready"`
	// Limit is how long the entrypoint may take.
	Limit time.Duration `json:"limit"`
}
