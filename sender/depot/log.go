package depot

import (
	"errors"
	"io"

	"github.com/corehaul/corehaul/dumpdir"
	"github.com/corehaul/corehaul/kernel/printk"
	"github.com/corehaul/corehaul/protocol"
)

// errKeepLog ends the reading of a log that is shorter than the one that is stored: a crash has one
// log, so one that is shorter was read worse.
var errKeepLog = errors.New("a longer log is stored already")

// takeLog takes notes, RAM ranges and the log, and makes the log durable.
func (s *session) takeLog() error {
	res, ok := s.w.Result()
	complete := ok && res.State == dumpdir.StateComplete
	log := &logReader{s: s}
	var err error
	if complete {
		_, err = io.Copy(io.Discard, log)
	} else {
		log.atLeast = max(0, s.w.Manifest().Bytes.Log)
		err = s.w.StoreLog(log)
	}
	switch {
	case errors.Is(log.err, errKeepLog):
	case log.err != nil && !errors.Is(log.err, io.EOF):
		return log.err // what the writer makes of it says less
	case err != nil:
		return err
	case !complete:
		if err := s.noteLog(log.title.Line()); err != nil {
			return err
		}
	}
	return s.wire.Write(&protocol.LogStored{Bytes: uint64(max(0, log.bytes))})
}

// noteLog says in the manifest who sends now, and the panic line if it is known.
func (s *session) noteLog(line string) error {
	return s.w.UpdateMeta(func(m *dumpdir.Meta) {
		if line != "" {
			m.PanicLine = line
		}
		m.Peer, m.Sender, m.Receiver = s.Peer, s.hello.Tool, s.Tool
	})
}

// logReader is the log as it comes over the wire. It takes the notes and RAM ranges that come
// before it on the way.
type logReader struct {
	s       *session
	bytes   int64
	atLeast int64
	rest    []byte // of the last piece
	title   printk.TitleScanner
	err     error
}

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

// more takes the next message. The connection checks order, totals and the checksum.
func (l *logReader) more() error {
	m, err := l.s.wire.Read()
	if err != nil {
		return err
	}
	switch m := m.(type) {
	case *protocol.Notes:
		l.s.notes = append(l.s.notes, m.Data...)
	case *protocol.RAM:
		l.s.ram = append(l.s.ram, m.Ranges...)
	case *protocol.Log:
		l.rest = m.Data
		l.bytes += int64(len(m.Data))
		_, _ = l.title.Write(m.Data) // it takes everything
	case *protocol.LogEnd:
		if l.bytes < l.atLeast {
			return errKeepLog
		}
		return io.EOF
	default:
		return outOfOrder(m, "LOG or LOGEND")
	}
	return nil
}
