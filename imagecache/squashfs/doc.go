// Package squashfs writes squashfs 4.0 files without a folder to copy from,
// checks the structure of such files, and reads those of other tools.
//
// A Writer takes the contents of files while they arrive (AddFile) and the
// tree that they belong to at the end (Finish). Contents are cut into blocks of
// 128 KiB, compressed with zstd by several goroutines, and written in the order
// in which they were added, so the same calls give the same bytes however many
// goroutines there are and whoever is faster. Memory holds some blocks for each
// goroutine, the tree, and 4 bytes per block of large files; the disk holds
// nothing but the result.
//
// What a file looks like, from its start:
//
//	superblock      96 bytes, written last
//	data            blocks of files, and fragments: blocks shared by small files
//	inode table     one record for each inode, in metadata blocks of 8 KiB
//	directory table the names in each directory, sorted
//	fragment table  where each fragment is
//	export table    where each inode is, for file handles
//	id table        the owners: only 0 here
//
// The format is described by https://dr-emann.github.io/squashfs/ and by Linux,
// fs/squashfs/squashfs_fs.h; where they leave room, this does what mksquashfs
// does. Not written: extended attributes, device nodes, owners other than root.
//
// Check reads a file that nobody vouches for and says whether the kernel
// would find every reference in it where it should be.
//
// A Reader reads the tree and the contents of what users bring along: files of
// mksquashfs, enroot and apptainer, with any compressor that Linux has.
package squashfs
