// Package soak runs jobs of several users on a cluster with Berth while what
// they depend on breaks, and looks at each of them and at the nodes.
//
//	plan.go      a seed and a round -> Round: jobs and faults, with their moments
//	kinds.go     the kinds of fault: what each may do to a job
//	image.go     the images, with a proof that a job ran in them
//	weather.go   a registry that is cut, slow or wrong for a while
//	oracle.go    a job, what became of it, the faults meanwhile -> right or wrong
//
// The tests do it: strike_test.go the faults, submit_test.go the jobs,
// invariants_test.go looks at the nodes when a round is over. docs/testing.md
// says how to run it, for how long and with which seed.
//
// A plan is a function of its seed alone. How it goes is not: which process a
// moment hits depends on the machine.
package soak
