package squashfs

// A Kind is the type of an inode.
type Kind uint8

// The kinds that a Writer knows.
const (
	Dir     Kind = typeDir
	Regular Kind = typeFile
	Symlink Kind = typeSymlink
	Fifo    Kind = typeFifo
)

// An Inode is a file, directory, symbolic link or fifo of the tree. Two
// entries with one Inode are hard links.
type Inode struct {
	Kind    Kind
	Mode    uint16  // permission bits and the sticky bit
	MTime   uint32  // seconds since 1970
	Target  string  // of a Symlink
	File    *File   // content of a Regular; nil means empty
	Entries []Entry // of a Dir, sorted by the bytes of the names

	number uint32
	links  uint32
	ref    uint64 // where it was written: metadata block << 16 | offset in it
}

// An Entry is a name in a directory.
type Entry struct {
	Name  string
	Inode *Inode
}

// A File is the content of a regular file, made by Writer.AddFile. It is not
// to be read before the writer has finished.
type File struct {
	size   uint64
	sparse uint64 // bytes in blocks of zeros, which are not stored
	start  uint64
	blocks []uint32 // size on disk of each, with storedBlock; 0 is a block of zeros

	fragment uint32
	offset   uint32 // in the fragment
}

// Size returns the length of the content in bytes.
func (f *File) Size() int64 { return int64(f.size) }
