package intake

import (
	"errors"
	"io"

	"github.com/corehaul/corehaul/mem"
	"github.com/corehaul/corehaul/protocol"
)

// ErrKeepLog ends the reading of a log that is shorter than the one that is stored: a crash
// has one log, so one that is shorter was read worse.
var ErrKeepLog = errors.New("a longer log is stored already")

// LogReader is the log as it comes over the wire. It takes the notes and RAM ranges that come
// before it on the way, and ends with io.EOF at LOGEND. The connection checks order, totals and
// the checksum.
type LogReader struct {
	// Next returns the next message.
	Next func() (protocol.Message, error)
	// Notes and RAM take their pieces, which are not theirs to keep.
	Notes func([]byte) error
	RAM   func([]mem.Range) error
	// Text gets the log as well.
	Text io.Writer
	// AtLeast is the length of the log that is stored.
	AtLeast uint64

	// Bytes is how much of the log has come, Problem why that is not all of it,
	// and Err what ended it.
	Bytes   uint64
	Problem string
	Err     error

	rest []byte // of the last piece
}

// Read implements io.Reader.
func (l *LogReader) Read(p []byte) (int, error) {
	for l.Err == nil && len(l.rest) == 0 {
		l.Err = l.more()
	}
	if l.Err != nil {
		return 0, l.Err
	}
	n := copy(p, l.rest)
	l.rest = l.rest[n:]
	return n, nil
}

// more takes the next message.
func (l *LogReader) more() error {
	m, err := l.Next()
	if err != nil {
		return err
	}
	switch m := m.(type) {
	case *protocol.Notes:
		return l.Notes(m.Data)
	case *protocol.RAM:
		return l.RAM(m.Ranges)
	case *protocol.Log:
		l.rest = m.Data
		l.Bytes += uint64(len(m.Data))
		_, err := l.Text.Write(m.Data)
		return err
	case *protocol.LogEnd:
		if l.Problem = m.Error; l.Bytes < l.AtLeast {
			return ErrKeepLog
		}
		return io.EOF
	}
	return protocol.Errorf(protocol.CodeOutOfOrder, "%s, expected LOG or LOGEND", m.Type())
}
