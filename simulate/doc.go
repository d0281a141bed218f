// Package simulate predicts what it takes until many nodes have an image that
// none of them had: how long, and what the registry, a mirror and the cluster's
// file system have to deliver. It is for sizing a site; docs/scale.md tells how
// its predictions compare with real starts, and what to conclude.
//
// Time goes on in events (engine.go): what takes a time of its own, as a pause
// or an answer's latency, is an event; what has to be moved or computed is a
// flow, and flows share links, file systems and processors fairly (flow.go).
// A node's way to its image (node.go, pull.go, cluster.go) is that of packages
// prolog and imagecache, with the same requests in the same order, the same
// pauses and the same locks:
//
//	start → [cluster's store: look, wait, copy] → manifest → config → layers,
//	converted as they come → hash, publish → container
//
// Nodes are alike and the network between them and the registry is one link:
// it does not know of islands, of switches, or of other traffic. The same input
// gives the same result.
//
// Nothing here opens a file or a connection.
package simulate
