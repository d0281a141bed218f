// Package e2e tests Berth as its users meet it: jobs that ordinary users
// submit to a real Slurm cluster, with images from a real registry. Every
// test runs with idmapped image mounts and without, as on older kernels.
//
// The tests need root, Debian's Slurm packages and what `make build` made;
// where something is missing they skip themselves and say so.
package e2e
