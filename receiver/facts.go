package receiver

import (
	"context"
	"errors"
	"io"
	"unsafe"

	"github.com/corehaul/corehaul/dumpdir"
	"github.com/corehaul/corehaul/intake"
	"github.com/corehaul/corehaul/kernel/printk"
	"github.com/corehaul/corehaul/mem"
	"github.com/corehaul/corehaul/protocol"
)

// readFacts takes notes, RAM ranges and the log, and makes the log durable. A dump
// that is complete needs none of them again, and they are dropped.
func (ss *session) readFacts(ctx context.Context) error {
	var title printk.TitleScanner
	log := &intake.LogReader{
		Next:  func() (protocol.Message, error) { return ss.in.next(ctx) },
		Notes: ss.addNotes, RAM: ss.addRAM, Text: &title,
	}
	err := ss.storeLog(log, &title)
	if log.Err != nil && !errors.Is(log.Err, io.EOF) {
		return log.Err // what the store makes of it says less
	}
	if err != nil {
		return err
	}
	if log.Problem != "" {
		ss.log.Warn("the sender could not send all of the log", "cause", log.Problem, "bytes", log.Bytes)
	}
	return ss.write(&protocol.LogStored{Bytes: log.Bytes})
}

func (ss *session) storeLog(log *intake.LogReader, title *printk.TitleScanner) error {
	if ss.complete() {
		_, err := io.Copy(io.Discard, log)
		return err
	}
	log.AtLeast = uint64(max(0, ss.w.Manifest().Bytes.Log))
	err := ss.w.StoreLog(log)
	if errors.Is(log.Err, intake.ErrKeepLog) {
		ss.log.Warn("kept the log of an earlier session", "bytes", log.AtLeast, "new", log.Bytes)
		log.Err = nil
		return ss.updateMeta("")
	}
	if err != nil {
		return err
	}
	return ss.updateMeta(title.Line())
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
