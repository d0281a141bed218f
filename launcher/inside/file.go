package inside

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/berth-hpc/berth/launcher"
)

// openFile opens a squashfs or SIF file of the user's, as the user, and says
// where in it the squashfs begins. The kernel never mounts such a file: it
// goes through FUSE, in a process of the user's.
func openFile(req *launcher.Request) (*os.File, int64, error) {
	path := req.Image.Path
	if !filepath.IsAbs(path) {
		path = filepath.Join(req.Job.Dir, path)
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, 0, userError(fmt.Sprintf("image file %s: %v", path, errors.Unwrap(err)),
			"give a squashfs or SIF file that you may read on the compute node")
	}
	offset, err := findSquashfs(f)
	if err != nil {
		f.Close()
		return nil, 0, userError(fmt.Sprintf("image file %s: %v", path, err),
			"give a squashfs file (mksquashfs, enroot import) or a SIF file (apptainer pull)")
	}
	return f, offset, nil
}

var (
	squashfsMagic = []byte("hsqs")
	sifMagic      = []byte("SIF_MAGIC\x00")
)

// findSquashfs returns the offset of the squashfs in f.
func findSquashfs(f io.ReaderAt) (int64, error) {
	var start [sifHeaderSize]byte
	n, err := f.ReadAt(start[:], 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return 0, err
	}
	switch {
	case bytes.HasPrefix(start[:n], squashfsMagic):
		return 0, nil
	case n == len(start) && bytes.HasPrefix(start[sifMagicAt:], sifMagic):
		return findInSIF(f, start[:])
	}
	return 0, errors.New("it is neither a squashfs nor a SIF file")
}

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
func findInSIF(f io.ReaderAt, header []byte) (int64, error) {
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
