// Package imagecache turns an image reference into one read-only squashfs
// file on node-local disk, and keeps that file until nobody needs it.
//
// The steps are files in this package, in the order the data takes:
//
//	reference.go  docker://r/i:tag   -> Reference   (nothing is looked up)
//	source.go     Reference          -> where it is served: a registry, or the
//	              user's own layout, archive, folder, squashfs or SIF file
//	manifest.go   Reference          -> Digest      (network, as the user)
//	layers.go     Digest             -> layer tars  (network, local disk)
//	stream.go     layer tars         -> squashfs    (local disk; merge/, squashfs/)
//	squash.go     the same through a folder and mksquashfs
//	pull.go       all of it into a store of one's own
//	store/        the store              (local disk, flock; no network code)
//
// One invariant holds at every instant, also after a crash: an Image that
// Store.Get returns is complete, and every byte it was made from matched the
// digest that names it. Everything below the store's tmp may be deleted while
// no pull runs.
//
// Two ways lead into a store. A user's own: Pull does everything. A managed
// node's: root takes the lock and makes a work folder, an account without
// rights runs Fetch on it, root runs Store.Publish (see package prolog).
//
// Nothing here mounts, changes uid or enters a namespace; see launcher.
package imagecache
