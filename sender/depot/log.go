package depot

import (
	"errors"
	"io"

	"github.com/corehaul/corehaul/dumpdir"
	"github.com/corehaul/corehaul/intake"
	"github.com/corehaul/corehaul/kernel/printk"
	"github.com/corehaul/corehaul/mem"
	"github.com/corehaul/corehaul/protocol"
)

// takeLog takes notes, RAM ranges and the log, and makes the log durable.
func (s *session) takeLog() error {
	res, ok := s.w.Result()
	complete := ok && res.State == dumpdir.StateComplete
	var title printk.TitleScanner
	log := &intake.LogReader{
		Next:  s.wire.Read,
		Notes: func(p []byte) error { s.notes = append(s.notes, p...); return nil },
		RAM:   func(list []mem.Range) error { s.ram = append(s.ram, list...); return nil },
		Text:  &title,
	}
	var err error
	if complete {
		_, err = io.Copy(io.Discard, log)
	} else {
		log.AtLeast = uint64(max(0, s.w.Manifest().Bytes.Log))
		err = s.w.StoreLog(log)
	}
	switch {
	case errors.Is(log.Err, intake.ErrKeepLog):
	case log.Err != nil && !errors.Is(log.Err, io.EOF):
		return log.Err // what the writer makes of it says less
	case err != nil:
		return err
	case !complete:
		if err := s.noteLog(title.Line()); err != nil {
			return err
		}
	}
	return s.wire.Write(&protocol.LogStored{Bytes: log.Bytes})
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
