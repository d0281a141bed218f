package imagecache

import (
	"os"

	"golang.org/x/sys/unix"
)

// writebackStep is how much is written between two words to the disk, in bytes.
const writebackStep = 16 << 20

// A writeback is a file that the disk begins to write while more of it comes.
// The kernel by itself would wait until a share of the memory is dirty, or half
// a minute, and whoever publishes the file would wait for the disk to take all
// of it.
type writeback struct {
	*os.File
	written, begun int64
}

// Write implements io.Writer.
func (w *writeback) Write(p []byte) (int, error) {
	n, err := w.File.Write(p)
	w.written += int64(n)
	if w.written-w.begun >= writebackStep {
		// Whole pages, or the last one would be written twice. It is a hint: what
		// it cannot do, and what fails on the disk, the publisher's fsync does
		// and says.
		end := w.written &^ (1<<16 - 1)
		_ = unix.SyncFileRange(int(w.Fd()), w.begun, end-w.begun, unix.SYNC_FILE_RANGE_WRITE)
		w.begun = end
	}
	return n, err
}
