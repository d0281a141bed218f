// Package warm is about images that are to be at hand before a job asks for
// them: which ones an administrator lists, which ones workflows name, which
// ones waiting jobs will need, and the digests that all nodes are to have.
//
//	list.go      what is to be at hand: text or TOML         -> List
//	lock.go      the same with digests, for all nodes        -> List
//	nextflow.go  containers of Nextflow's configurations     -> List
//	snakemake.go containers of Snakefiles                    -> List
//	queue.go     what squeue says of jobs that wait          -> Waiting
//
// Nothing here asks a registry or touches a store: `berth warm` does
// (cmd/berth), on nodes by way of prolog.Warm.
package warm
