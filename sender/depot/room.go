package depot

import (
	"context"
	"fmt"
	"math"
	"syscall"

	"github.com/corehaul/corehaul/dumpdir"
	"github.com/corehaul/corehaul/intake"
)

// What a chunk takes beside its pages (descriptors, a record in the journal), and what is left for the end of a
// dump, in bytes.
const (
	chunkExtra = 16 << 10
	endExtra   = 256 << 10
)

// spacer is a file system that can tell how much room there is below a directory, in bytes.
type spacer interface {
	Free(dir string) (int64, error)
}

// RoomFor keeps a full disk from spoiling what was written before it was full: the errors of writes come late, when much
// else is on its way. It looks how much room there is once that is used up which was there before: once, unless the disk is small.
// When there seems to be none, what was put is committed first, which makes the answer right. A full disk shows as syscall.ENOSPC,
// and the writer is well. The session has one worker, so there is one call at a time.
func (d *depot) RoomFor(_ context.Context, chunk *dumpdir.Chunk) error {
	need := int64(len(chunk.Data)) + chunkExtra
	if d.left < need {
		if err := d.lookForRoom(); err != nil {
			return &intake.ChunkError{Seq: chunk.Seq, Err: err}
		}
	}
	if d.left < need {
		err := fmt.Errorf("%s: no room for %d KiB and the end of the dump: %w", d.W.Dir(), need>>10, syscall.ENOSPC)
		return &intake.ChunkError{Seq: chunk.Seq, Err: err}
	}
	d.left -= need
	return nil
}

func (d *depot) lookForRoom() error {
	d.left = math.MaxInt64
	files, ok := d.FS.(spacer)
	if !ok {
		return nil
	}
	if err := d.Commit(); err != nil {
		return err
	}
	// A server that does not tell is no reason not to write; if it is gone, that shows anyway.
	if free, err := files.Free(d.W.Dir()); err == nil {
		d.left = free - endExtra
	}
	return nil
}
