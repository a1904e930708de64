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

// readLog takes notes, RAM ranges and the log, and makes the log durable. A dump
// that is complete needs none of them again, and they are dropped.
func (s *Session) readLog(ctx context.Context) error {
	log := &LogReader{
		Next:  func() (protocol.Message, error) { return s.in.next(ctx) },
		Notes: s.addNotes, RAM: s.addRAM, Text: s.cfg.Title,
	}
	err := s.storeLog(log)
	if log.Err != nil && !errors.Is(log.Err, io.EOF) {
		return log.Err // what the store makes of it says less
	}
	if err != nil {
		return err
	}
	if log.Problem != "" {
		s.policy.Log().Warn("the sender could not send all of the log", "cause", log.Problem, "bytes", log.Bytes)
	}
	return s.Write(&protocol.LogStored{Bytes: log.Bytes})
}

func (s *Session) storeLog(log *LogReader) error {
	if s.Complete() {
		_, err := io.Copy(io.Discard, log)
		return err
	}
	log.AtLeast = uint64(max(0, s.W.Manifest().Bytes.Log))
	err := s.W.StoreLog(log)
	if errors.Is(log.Err, ErrKeepLog) {
		s.policy.Log().Warn("kept the log of an earlier session", "bytes", log.AtLeast, "new", log.Bytes)
		log.Err = nil
		return s.UpdateMeta("")
	}
	if err != nil {
		return err
	}
	return s.UpdateMeta(s.cfg.Title.Line())
}

func (s *Session) addNotes(p []byte) error {
	if err := s.policy.Hold(2 * int64(len(p))); err != nil { // append may leave as much room again
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

// facts is what the front of vmcore says of the machine.
func (s *Session) facts() dumpdir.Facts {
	f := Facts(s.Hello, s.Began, s.cfg.Codec)
	f.Notes, f.RAM = s.notes, s.ram
	return f
}
