// Package imagefile says what a file or folder is that a user gives in the
// place of an image's name, and reads what the tool that made it left inside:
//
//	identify.go     squashfs, SIF, archive, OCI layout, plain tree
//	sif.go          where in a SIF file the squashfs lies
//	config.go       the environment, command and labels in a tree
//	enroot.go       … as enroot writes them
//	singularity.go  … as Apptainer and Singularity write them
//
// It runs as the user, on files that others may have made, and needs nothing
// but the standard library: the launcher's builder and the image cache share
// it. It mounts and unpacks nothing.
package imagefile
