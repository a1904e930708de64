package protocol

import (
	"github.com/zeebo/xxh3"

	"github.com/corehaul/corehaul/mem"
)

// WriteNotes sends the raw PT_NOTE bytes in pieces.
func (c *Conn) WriteNotes(notes []byte) error {
	for len(notes) > 0 {
		n := min(len(notes), PieceBytes)
		if err := c.Write(&Notes{Data: notes[:n]}); err != nil {
			return err
		}
		notes = notes[n:]
	}
	return nil
}

// WriteRAM sends the list of RAM ranges, ascending and disjoint, in pieces.
func (c *Conn) WriteRAM(ranges []mem.Range) error {
	for m := range RAMPieces(ranges) {
		if err := c.Write(m); err != nil {
			return err
		}
	}
	return nil
}

// LogWriter sends the kernel log in pieces. Close ends it.
type LogWriter struct {
	c     *Conn
	buf   []byte
	bytes uint64
	sum   *xxh3.Hasher
	err   error
}

// NewLogWriter returns a writer that sends LOG messages over c.
func (c *Conn) NewLogWriter() *LogWriter {
	return &LogWriter{c: c, buf: make([]byte, 0, PieceBytes), sum: xxh3.New()}
}

// Write sends p in pieces. If the log would exceed MaxLogBytes, it returns CodeTooLarge. Earlier writes stay valid,
// and Close may follow.
func (w *LogWriter) Write(p []byte) (int, error) {
	if w.err != nil {
		return 0, w.err
	}
	if w.bytes+uint64(len(p)) > MaxLogBytes {
		return 0, Errorf(CodeTooLarge, "log of more than %d bytes", MaxLogBytes)
	}
	w.bytes += uint64(len(p))
	_, _ = w.sum.Write(p) // a Hasher never fails
	done := 0
	for done < len(p) {
		n := min(PieceBytes-len(w.buf), len(p)-done)
		w.buf = append(w.buf, p[done:done+n]...)
		done += n
		if len(w.buf) == PieceBytes {
			if w.err = w.flush(); w.err != nil {
				return done, w.err
			}
		}
	}
	return done, nil
}

func (w *LogWriter) flush() error {
	if len(w.buf) == 0 {
		return nil
	}
	err := w.c.Write(&Log{Data: w.buf})
	w.buf = w.buf[:0]
	return err
}

// Close sends the rest and LOGEND. reason says why the log is missing or incomplete; empty if it is complete.
func (w *LogWriter) Close(reason string) error {
	if w.err == nil {
		w.err = w.flush()
	}
	if w.err == nil {
		w.err = w.c.Write(&LogEnd{Bytes: w.bytes, Sum: Sum64(w.sum.Sum64()), Error: reason})
	}
	return w.err
}
