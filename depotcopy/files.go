package depotcopy

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/corehaul/corehaul/dumpdir"
	"github.com/corehaul/corehaul/internal/bytesize"
	"github.com/corehaul/corehaul/internal/plainfile"
	"github.com/corehaul/corehaul/receiver/admission"
	"github.com/corehaul/corehaul/vmcore"
)

// copyPiece is how much is read, charged and written at once.
const copyPiece = 1 << 20

// maxHoles bounds what a file may claim without having it: a reader of the copy goes over it. The bitmaps of the highest page frame that the
// protocol allows have 256 GiB.
const maxHoles = 512 << 30

// copying is a copy of files.
type copying struct {
	src      source
	to       dumpdir.FS
	account  *admission.Account // of the host
	done     uint64             // bytes
	progress func(done uint64)
}

// file copies a file, durably. Holes and zeros of the file are holes of the copy.
func (c *copying) file(ctx context.Context, name, to string) (err error) {
	in, err := plainfile.OpenFileIn(c.src.root, name, os.O_RDONLY)
	if err != nil {
		return err
	}
	defer func() { _ = in.Close() }() // only read
	st, err := in.Stat()
	if err != nil {
		return err
	}
	if holes := plainfile.Holes(st); holes > maxHoles {
		return fmt.Errorf("it has holes of %s", bytesize.Format(holes))
	}
	out, err := c.to.Create(to)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, out.Close()) }()
	if err := c.data(ctx, in, out, st.Size()); err != nil {
		return err
	}
	if err := out.Truncate(st.Size()); err != nil {
		return err
	}
	return out.Sync()
}

// data copies the first size bytes, without holes, and charges the host for each piece.
func (c *copying) data(ctx context.Context, in *os.File, out dumpdir.File, size int64) error {
	buf := make([]byte, copyPiece)
	for off := int64(0); off < size; {
		if err := ctx.Err(); err != nil {
			return err
		}
		c.progress(c.done)
		at, ok := plainfile.NextData(in, off)
		if !ok || at >= size {
			return nil
		}
		n, err := in.ReadAt(buf[:min(copyPiece, size-at)], at)
		if err != nil && !errors.Is(err, io.EOF) {
			return err
		}
		if n == 0 {
			return ErrChanges
		}
		off = at + int64(n)
		c.done += uint64(n)
		if vmcore.IsZero(buf[:n]) {
			continue
		}
		if err := c.account.Charge(ctx, uint64(n)); err != nil {
			return err
		}
		if _, err := out.WriteAt(buf[:n], at); err != nil {
			return err
		}
	}
	return nil
}
