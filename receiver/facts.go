package receiver

import (
	"context"
	"errors"
	"io"
	"unsafe"

	"github.com/corehaul/corehaul/dumpdir"
	"github.com/corehaul/corehaul/kernel/printk"
	"github.com/corehaul/corehaul/mem"
	"github.com/corehaul/corehaul/protocol"
)

// readFacts takes notes, RAM ranges and the log, and makes the log durable. A dump
// that is complete needs none of them again, and they are dropped.
func (ss *session) readFacts(ctx context.Context) error {
	log := &logReader{ctx: ctx, ss: ss}
	err := ss.storeLog(log)
	if log.err != nil && !errors.Is(log.err, io.EOF) {
		return log.err // what the store makes of it says less
	}
	if err != nil {
		return err
	}
	return ss.write(&protocol.LogStored{Bytes: log.bytes})
}

// errKeepLog ends the reading of a log that is shorter than the one that is stored.
var errKeepLog = errors.New("a longer log is stored already")

func (ss *session) storeLog(log *logReader) error {
	if ss.complete() {
		_, err := io.Copy(io.Discard, log)
		return err
	}
	log.atLeast = uint64(max(0, ss.w.Manifest().Bytes.Log))
	err := ss.w.StoreLog(log)
	if errors.Is(log.err, errKeepLog) {
		ss.log.Warn("kept the log of an earlier session", "bytes", log.atLeast, "new", log.bytes)
		log.err, err = nil, nil
		log.title = printk.TitleScanner{}
	}
	if err != nil {
		return err
	}
	return ss.updateMeta(log.title.Line())
}

// updateMeta says in the manifest who sends now, and the panic line if it is known.
func (ss *session) updateMeta(line string) error {
	return ss.w.UpdateMeta(func(m *dumpdir.Meta) {
		if line != "" {
			m.PanicLine = line
		}
		m.Peer, m.Sender, m.Receiver = ss.peer.Addr, ss.hello.Tool, ss.cfg.Tool
	})
}

// complete reports whether the dump needs nothing more.
func (ss *session) complete() bool {
	res, ok := ss.w.Result()
	return ok && res.State == dumpdir.StateComplete
}

// hold takes n bytes of the memory for sessions that are not let in.
func (ss *session) hold(n int64) error {
	if err := ss.srv.hello.take(n); err != nil {
		return err
	}
	ss.held += n
	return nil
}

// unhold gives n of them back.
func (ss *session) unhold(n int64) {
	ss.srv.hello.give(n)
	ss.held -= n
}

func (ss *session) addNotes(p []byte) error {
	if err := ss.hold(2 * int64(len(p))); err != nil { // append may leave as much room again
		return err
	}
	ss.notes = append(ss.notes, p...)
	return nil
}

func (ss *session) addRAM(ranges []mem.Range) error {
	if err := ss.hold(2 * int64(len(ranges)) * int64(unsafe.Sizeof(mem.Range{}))); err != nil {
		return err
	}
	ss.ram = append(ss.ram, ranges...)
	return nil
}

// logReader is the log as it comes over the wire. It takes the notes and RAM ranges
// that come before it on the way, and ends with io.EOF at LOGEND. The connection
// checks order, totals and the checksum.
type logReader struct {
	ctx   context.Context // an io.Reader has no other place for it
	ss    *session
	bytes uint64
	rest  []byte // of the last piece
	title printk.TitleScanner
	// atLeast is the length of the log that is stored: a crash has one log, so one
	// that is shorter was read worse.
	atLeast uint64
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

// more takes the next message.
func (l *logReader) more() error {
	msg, err := l.ss.in.next(l.ctx)
	if err != nil {
		return err
	}
	switch m := msg.(type) {
	case *protocol.Notes:
		return l.ss.addNotes(m.Data)
	case *protocol.RAM:
		return l.ss.addRAM(m.Ranges)
	case *protocol.Log:
		l.rest = m.Data
		l.bytes += uint64(len(m.Data))
		_, _ = l.title.Write(m.Data) // it takes everything
		return nil
	case *protocol.LogEnd:
		if m.Error != "" {
			l.ss.log.Warn("the sender could not read all of the log", "cause", m.Error, "bytes", l.bytes)
		}
		if l.bytes < l.atLeast {
			return errKeepLog
		}
		return io.EOF
	}
	return outOfOrder(msg, "LOG or LOGEND")
}
