// Package tests holds the tests of Berth's plugin for Slurm. The plugin is in
// the folder above, in C (the table in plugin.c shows which hook runs where
// and as whom): no Go runtime lives in Slurm's processes, it does not survive
// their forks. The tests have a folder of their own because the go command
// takes C files beside Go files for cgo.
package tests
