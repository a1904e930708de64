package intake

import (
	"context"
	"errors"
	"io"
	"unsafe"

	"github.com/corehaul/corehaul/dumpdir"
	"github.com/corehaul/corehaul/mem"
	"github.com/corehaul/corehaul/protocol"
)

// readLog takes notes, RAM ranges and the log, and makes the log durable. It drops them if the dump is complete.
func (s *Session) readLog(ctx context.Context) error {
	log := &logReader{s: s, ctx: ctx}
	err := s.storeLog(log)
	if log.err != nil && !errors.Is(log.err, io.EOF) {
		return log.err // it says more than the store's error
	}
	if err != nil {
		return err
	}
	if log.problem != "" {
		s.policy.Log().Warn("the sender could not send all of the log", "cause", log.problem, "bytes", log.bytes)
	}
	return s.Write(&protocol.LogStored{Bytes: log.bytes})
}

func (s *Session) storeLog(log *logReader) error {
	if s.Complete() {
		_, err := io.Copy(io.Discard, log)
		return err
	}
	log.stored, log.atLeast = true, uint64(max(0, s.W.Manifest().Bytes.Log))
	err := s.W.StoreLogMeta(log, func(m *dumpdir.Meta) { s.present(m, s.cfg.Title.Line()) })
	if errors.Is(log.err, errKeepLog) {
		s.policy.Log().Warn("kept the log of an earlier session", "bytes", log.atLeast, "new", log.bytes)
		log.err = nil
		return s.UpdateMeta("")
	}
	return err
}

func (s *Session) addNotes(p []byte) error {
	if err := s.policy.Hold(2 * int64(len(p))); err != nil { // append may double the capacity
		return err
	}
	s.notes = append(s.notes, p...)
	return nil
}

func (s *Session) addRAM(ranges []mem.Range) error {
	if err := s.policy.Hold(2 * int64(len(ranges)) * int64(unsafe.Sizeof(mem.Range{}))); err != nil {
		return err
	}
	s.ram = append(s.ram, ranges...)
	return nil
}

// errKeepLog ends the reading of a log that is shorter than the stored one. A crash has one log, so the longer one
// was read better.
var errKeepLog = errors.New("a longer log is stored already")

// logReader is the log of the wire. It also takes the notes and RAM ranges that come before the log. It ends with
// io.EOF at LOGEND. The connection checks order, totals and checksum.
type logReader struct {
	s   *Session
	ctx context.Context // of the session
	// stored says that the log is written. atLeast is the length of the log that is there already.
	stored  bool
	atLeast uint64

	// bytes is the length of the log so far, problem says why the sender could not send all of it, and err is the
	// error that ended it.
	bytes   uint64
	problem string
	err     error

	rest []byte // of the last piece
}

// Read implements io.Reader.
func (l *logReader) Read(p []byte) (int, error) {
	for l.err == nil && len(l.rest) == 0 {
		l.err = l.more()
	}
	if l.err != nil {
		return 0, l.err
	}
	n := copy(p, l.rest)
	l.rest = l.rest[n:]
	return n, nil
}

// more takes the next message.
func (l *logReader) more() error {
	m, err := l.s.in.next(l.ctx)
	if err != nil {
		return err
	}
	switch m := m.(type) {
	case *protocol.Notes:
		return l.s.addNotes(m.Data)
	case *protocol.RAM:
		return l.s.addRAM(m.Ranges)
	case *protocol.Log:
		l.rest = m.Data
		l.bytes += uint64(len(m.Data))
		if _, err := l.s.cfg.Title.Write(m.Data); err != nil || !l.stored {
			return err
		}
		return l.s.policy.RoomFor(l.ctx, Log, int64(len(m.Data)))
	case *protocol.LogEnd:
		if l.problem = m.Error; l.bytes < l.atLeast {
			return errKeepLog
		}
		return io.EOF
	}
	return outOfOrder(m, "LOG or LOGEND")
}
