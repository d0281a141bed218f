package squashfs

import "encoding/binary"

// Sizes of the format, in bytes.
const (
	// BlockSize is how files are cut. 128 KiB with zstd 3 was measured to be
	// the best trade of size against the cost of reading.
	BlockSize = 1 << blockLog

	blockLog        = 17
	metadataSize    = 8 << 10
	superblockSize  = 96
	inodeHeaderSize = 16
	dirHeaderSize   = 12
	dirEntrySize    = 8
	fragmentSize    = 16
	// padding rounds the file up: a loop device has whole sectors.
	padding = 4 << 10
)

// Limits of the format and of Linux.
const (
	// MaxName is the longest name in a directory.
	MaxName = 255
	// MaxTarget is the longest target of a symbolic link that Linux reads.
	MaxTarget = 4095

	maxRun      = 256     // entries below one header of a directory
	maxListing  = 1 << 30 // of one directory; Linux counts in an int
	maxIndex    = 1<<16 - 1
	dirSizeBias = 3 // what a directory's size is more than its listing: "." and ".."
)

// Marks and flags.
const (
	magic            = 0x73717368 // "hsqs"
	compressionZstd  = 6
	flagStoredInodes = 0x1 // and the directory table, too
	flagDuplicates   = 0x40
	flagExportable   = 0x80
	flagNoXattrs     = 0x200
	// flagCompressorOptions says that they follow the superblock.
	flagCompressorOptions = 0x400

	storedBlock    = 1 << 24 // in the size of a data block: it is not compressed
	storedMetadata = 1 << 15 // the same for a metadata block
	noFragment     = 1<<32 - 1
	noTable        = 1<<64 - 1
	noXattr        = 1<<32 - 1
)

// Types of inodes. Directories list the basic one for both.
const (
	typeDir         = 1
	typeFile        = 2
	typeSymlink     = 3
	typeFifo        = 6
	typeExtDir      = 8
	typeExtFile     = 9
	typeExtSymlink  = 10
	typeExtFifo     = 13
	extendedMinus   = typeExtDir - typeDir
	lastKnownType   = 14
	lastBasicType   = 7
	refOffsetBits   = 16
	refOffsetMask   = 1<<refOffsetBits - 1
	maxInodeDelta   = 1<<15 - 1
	minInodeDelta   = -1 << 15
	exportEntrySize = 8
)

// superblock is the first 96 bytes.
type superblock struct {
	Magic, Inodes, Made, BlockSize, Fragments            uint32
	Compression, BlockLog, Flags, IDs, Major, Minor      uint16
	Root, BytesUsed                                      uint64
	IDTable, XattrTable, InodeTable, DirTable, FragTable uint64
	ExportTable                                          uint64
}

var le = binary.LittleEndian
