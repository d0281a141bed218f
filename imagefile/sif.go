package imagefile

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// FindSquashfs returns where the squashfs in f begins, f being a squashfs or
// SIF file. In a SIF file it is the primary partition.
func FindSquashfs(f io.ReaderAt) (int64, error) {
	kind, err := IdentifyFile(f)
	if err != nil {
		return 0, err
	}
	switch kind {
	case Squashfs:
		return 0, nil
	case SIF:
		return findInSIF(f)
	case Archive:
		return 0, ErrArchive
	}
	return 0, ErrNoImage
}

// ErrNoImage and ErrArchive say that a file holds no squashfs: it is nothing
// known, or an archive, which has to be converted first.
var (
	ErrNoImage = errors.New("it is neither a squashfs nor a SIF file")
	ErrArchive = errors.New("it is an archive, which has to be converted first")
)

// Where the Singularity Image Format keeps what is needed here. All numbers
// are little-endian; structures are packed (github.com/sylabs/sif, pkg/sif).
const (
	sifHeaderSize     = 128
	sifMagicAt        = 32 // after the launch script
	sifTotalAt        = 88 // int64: number of descriptors
	sifDescriptorsAt  = 96 // int64: offset of the first
	sifDescriptorSize = 585
	sifPartition      = 0x4004 // data type
	sifSquashfs       = 1      // file system of a partition
	sifPrimary        = 2      // partition that holds the root file system
	sifMaxDescriptors = 4096
)

// findInSIF returns the offset of the primary partition.
func findInSIF(f io.ReaderAt) (int64, error) {
	header := make([]byte, sifHeaderSize)
	if _, err := f.ReadAt(header, 0); err != nil {
		return 0, fmt.Errorf("its SIF header is damaged: %w", err)
	}
	total := int64(binary.LittleEndian.Uint64(header[sifTotalAt:]))
	first := int64(binary.LittleEndian.Uint64(header[sifDescriptorsAt:]))
	if total < 0 || total > sifMaxDescriptors || first < 0 {
		return 0, errors.New("its SIF header is damaged")
	}
	d := make([]byte, sifDescriptorSize)
	for i := range total {
		if _, err := f.ReadAt(d, first+i*sifDescriptorSize); err != nil {
			return 0, fmt.Errorf("its SIF header is damaged: %w", err)
		}
		if offset, ok := primaryPartition(d); ok {
			return offset, checkSquashfs(f, offset)
		}
	}
	return 0, errors.New("it is a SIF file without a squashfs root file system")
}

// primaryPartition reads one descriptor: type int32, used bool, three ids of
// 4 bytes, offset int64 … and at 201 the partition's file system and type.
func primaryPartition(d []byte) (int64, bool) {
	number := func(at int) uint32 { return binary.LittleEndian.Uint32(d[at:]) }
	if number(0) != sifPartition || d[4] == 0 || number(201) != sifSquashfs || number(205) != sifPrimary {
		return 0, false
	}
	return int64(binary.LittleEndian.Uint64(d[17:])), true
}

func checkSquashfs(f io.ReaderAt, offset int64) error {
	magic := make([]byte, len(squashfsMagic))
	if _, err := f.ReadAt(magic, max(offset, 0)); err != nil || offset < 0 || !bytes.Equal(magic, squashfsMagic) {
		return errors.New("its SIF header points to something else than a squashfs; encrypted images are not supported")
	}
	return nil
}
