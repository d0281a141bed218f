// Package inflate reads gzip streams, RFC 1952 around RFC 1951, faster than
// general libraries do: the layers of an image come through it, and nothing but
// compressing takes more of a pull's time.
//
// Where the speed is from: bits are taken eight bytes at a time, codes are
// looked up in tables that hold what a symbol means and not only which it is,
// matches are copied eight bytes at a time, and decoding runs ahead of its
// reader in a goroutine of its own, into buffers that go round. Everything is
// bounds-checked Go; nothing is unsafe.
//
//	gzip.go     headers, trailers and checksums of the members
//	block.go    the blocks of one member
//	huffman.go  the two loops over symbols: a fast one, and one for the end
//	table.go    code lengths to tables
//	reader.go   the goroutine and its buffers
//
// The tests hold it to compress/gzip: for any input both give the same bytes,
// or both an error.
package inflate
