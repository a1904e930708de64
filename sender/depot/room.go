package depot

import (
	"context"
	"fmt"
	"math"
	"syscall"

	"github.com/corehaul/corehaul/intake"
)

// chunkExtra is the space of a chunk beside its pages, for descriptors and a journal record. endExtra is reserved for
// the end of the dump. Both in bytes.
const (
	chunkExtra = 16 << 10
	endExtra   = 256 << 10
)

// spacer is a file system that knows the free space at a directory, in bytes.
type spacer interface {
	Free(dir string) (int64, error)
}

// RoomFor checks for free space before a chunk is written, because errors of writes come late, when later writes are in
// flight. It asks the server again when the space that it last reported is used up, after a commit that makes the answer
// exact. Without space, it returns syscall.ENOSPC and the writer stays usable. The session has one worker, so there is
// one call at a time.
func (d *depot) RoomFor(_ context.Context, of intake.Content, bytes int64) error {
	if of != intake.Pages {
		return nil // what comes before the pages is written at once, and its errors come at once
	}
	need := bytes + chunkExtra
	if d.left < need {
		if err := d.askFree(); err != nil {
			return err
		}
	}
	if d.left < need {
		return fmt.Errorf("%s: no room for %d KiB and the end of the dump: %w", d.W.Dir(), need>>10, syscall.ENOSPC)
	}
	d.left -= need
	return nil
}

// askFree sets d.left from the free space on the server.
func (d *depot) askFree() error {
	d.left = math.MaxInt64
	files, ok := d.FS.(spacer)
	if !ok {
		return nil
	}
	if err := d.Commit(); err != nil {
		return err
	}
	// If the server does not know, writing goes on. If it is gone, the next write fails.
	if free, err := files.Free(d.W.Dir()); err == nil {
		d.left = free - endExtra
	}
	return nil
}
