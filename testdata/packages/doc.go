// Package packages tests the packages that packaging/build makes: their files
// on this machine, and their installation and removal on machines of a cluster
// (testdata/cluster) that have a Debian of their own.
package packages
