package receiver

import (
	"context"
	"encoding/binary"
	"errors"
	"io"

	"github.com/corehaul/corehaul/dumpdir"
	"github.com/corehaul/corehaul/storage"
)

// spool keeps the pieces of a plan as they come, on disk, until PLANEND tells whether the store has the
// plan already. An error is of interest only if it has not, and is returned then.
type spool struct {
	f    dumpdir.File
	size int64
	err  error
}

func newSpool(ctx context.Context, store storage.Store) *spool {
	s := new(spool)
	s.f, s.err = store.Scratch(ctx)
	return s
}

// spoolHead is the length of what precedes each piece: its own length.
const spoolHead = 4

// add keeps a piece.
func (s *spool) add(piece []byte) {
	if s.err != nil {
		return
	}
	b := binary.LittleEndian.AppendUint32(make([]byte, 0, spoolHead+len(piece)), uint32(len(piece))) //nolint:gosec // bounded by the protocol
	if _, s.err = s.f.WriteAt(append(b, piece...), s.size); s.err == nil {
		s.size += int64(spoolHead + len(piece))
	}
}

// each calls fn with the pieces. They are valid during the call.
func (s *spool) each(fn func(piece []byte) error) error {
	if s.err != nil {
		return s.err
	}
	r := io.NewSectionReader(s.f, 0, s.size)
	var head [spoolHead]byte
	var piece []byte
	for {
		if _, err := io.ReadFull(r, head[:]); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
		n := int(binary.LittleEndian.Uint32(head[:]))
		if cap(piece) < n {
			piece = make([]byte, n)
		}
		if _, err := io.ReadFull(r, piece[:n]); err != nil {
			return err
		}
		if err := fn(piece[:n]); err != nil {
			return err
		}
	}
}

// close gives the disk space back.
func (s *spool) close() error {
	if s.f == nil {
		return nil
	}
	return s.f.Close()
}
