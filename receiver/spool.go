package receiver

import (
	"context"
	"encoding/binary"
	"errors"
	"io"

	"github.com/corehaul/corehaul/dumpdir"
	"github.com/corehaul/corehaul/intake"
)

// spool keeps the pieces of a plan as they come, on disk, until PLANEND tells whether the store has the
// plan already. An error is of interest only if it has not, and is returned then.
type spool struct {
	f    dumpdir.File
	size int64
	err  error
}

// Spool implements intake.Policy.
func (ss *session) Spool(ctx context.Context) intake.Spool {
	s := new(spool)
	s.f, s.err = ss.cfg.Store.Scratch(ctx)
	return s
}

// spoolHead is the length of what precedes each piece: its own length.
const spoolHead = 4

// Add keeps a piece.
func (s *spool) Add(piece []byte) {
	if s.err != nil {
		return
	}
	b := binary.LittleEndian.AppendUint32(make([]byte, 0, spoolHead+len(piece)), uint32(len(piece))) //nolint:gosec // bounded by the protocol
	if _, s.err = s.f.WriteAt(append(b, piece...), s.size); s.err == nil {
		s.size += int64(spoolHead + len(piece))
	}
}

// Each calls fn with the pieces. They are valid during the call.
func (s *spool) Each(fn func(piece []byte) error) error {
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

// Close gives the disk space back.
func (s *spool) Close() error {
	if s.f == nil {
		return nil
	}
	return s.f.Close()
}
