// Package launcher makes containers and lets tasks join them.
//
// A container is a mount namespace with an assembled root file system. The
// steps, in the order the data takes:
//
//	mount_linux.go   squashfs file   -> image mount, one per node      (root)
//	userns_linux.go  user            -> user namespaces N1 and N2      (root makes them, the user owns them)
//	stage_linux.go   image mount     -> stage, a private mount namespace (root)
//	inside/          stage, request  -> overlay, binds, pivot          (the user, in N1)
//	join/ (C)        namespaces      -> task                           (the user)
//
// On a machine without Berth's root side the user does all of it, with FUSE
// or an unpacked folder in place of the image mount.
//
// Root never enters a namespace that a user owns, never resolves a path that
// a user controls and never executes anything of an image: it hands over
// descriptors and takes descriptors back, checked for their type and owner.
package launcher
