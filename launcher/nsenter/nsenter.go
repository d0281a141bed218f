// Package nsenter does, in a C constructor, what a process must do before
// Go's threads exist: create and join user namespaces. A program that imports
// it gains the start-up modes `userns` and `inside` (see nsenter.c), `janitor` and
// `giveback` (see janitor.h).
// Only berth-create and the tests of launcher import it.
package nsenter

// #cgo CFLAGS: -Wall -Wextra -Werror -O2
import "C"
