package depot

import (
	"fmt"
	"math"
	"syscall"

	"github.com/corehaul/corehaul/dumpdir"
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

// room keeps a full disk from spoiling what was written before it was full: the errors of writes come late, when much
// else is on its way. It looks how much room there is once that is used up which was there before: once, unless the disk is small.
type room struct {
	left int64
}

// take takes the room for a chunk. When there seems to be none, what was put is committed first, which makes the answer right.
// A full disk shows as syscall.ENOSPC, and the writer is well.
func (r *room) take(s *session, chunk *dumpdir.Chunk) error {
	need := int64(len(chunk.Data)) + chunkExtra
	if r.left < need {
		if err := r.look(s); err != nil {
			return err
		}
	}
	if r.left < need {
		return fmt.Errorf("%s: no room for %d KiB and the end of the dump: %w", s.w.Dir(), need>>10, syscall.ENOSPC)
	}
	r.left -= need
	return nil
}

func (r *room) look(s *session) error {
	r.left = math.MaxInt64
	files, ok := s.FS.(spacer)
	if !ok {
		return nil
	}
	if err := s.commit(); err != nil {
		return err
	}
	// A server that does not tell is no reason not to write; if it is gone, that shows anyway.
	if free, err := files.Free(s.w.Dir()); err == nil {
		r.left = free - endExtra
	}
	return nil
}
