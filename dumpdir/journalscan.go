package dumpdir

import (
	"encoding/binary"
	"errors"
	"io"
)

// record is one intact journal record. The payload is valid until the next read.
type record struct {
	typ     recordType
	off     int64
	payload []byte
}

func (r *record) end() int64 { return r.off + recordHeaderLen + int64(len(r.payload)) }

// errBroken says that no intact record begins at an offset.
var errBroken = errors.New("no intact record")

// maxResyncSums bounds the bytes that one scanner may checksum in vain: a hostile journal that consists of plausible
// headers would cost quadratic time.
const maxResyncSums = 64 << 20

// scanner reads records in order through one buffer.
type scanner struct {
	r    io.ReaderAt
	size int64
	buf  []byte
	base int64 // file offset of buf[0]

	budget int // of maxResyncSums
}

func newScanner(r io.ReaderAt, size int64) *scanner {
	return &scanner{r: r, size: size, buf: make([]byte, 0, int(min(size, 4*maxPayload))), budget: maxResyncSums}
}

// window returns the n bytes at off. They lie within the journal.
func (s *scanner) window(off int64, n int) ([]byte, error) {
	if off >= s.base && off+int64(n) <= s.base+int64(len(s.buf)) {
		return s.buf[off-s.base:][:n], nil
	}
	fill := min(int64(cap(s.buf)), s.size-off)
	s.buf, s.base = s.buf[:fill], off
	got, err := s.r.ReadAt(s.buf, off)
	s.buf = s.buf[:got]
	if got < n {
		if err == nil || errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		return nil, err
	}
	return s.buf[:n], nil
}

// at returns the record at off. The error is io.EOF at the end of the journal, errBroken if there is no intact
// record.
func (s *scanner) at(off int64) (record, error) {
	left := s.size - off
	if left == 0 {
		return record{}, io.EOF
	}
	if left < recordHeaderLen {
		return record{}, errBroken
	}
	head, err := s.window(off, recordHeaderLen)
	if err != nil {
		return record{}, err
	}
	n, ok := plausibleHeader(head)
	if !ok || left-recordHeaderLen < int64(n) {
		return record{}, errBroken
	}
	all, err := s.window(off, recordHeaderLen+n)
	if err != nil {
		return record{}, err
	}
	head, payload := all[:recordHeaderLen], all[recordHeaderLen:]
	if recordSum(off, head, payload) != binary.LittleEndian.Uint32(head[8:]) {
		return record{}, errBroken
	}
	return record{typ: recordType(binary.LittleEndian.Uint16(head)), off: off, payload: payload}, nil
}

// resync finds the next intact record behind a broken one, within maxBatch bytes: a torn write is never longer.
func (s *scanner) resync(off int64) (next int64, found bool, err error) {
	for next = off + 1; next <= min(off+maxBatch, s.size-recordHeaderLen); next++ {
		head, err := s.window(next, recordHeaderLen)
		if err != nil {
			return 0, false, err
		}
		n, ok := plausibleHeader(head)
		if !ok {
			continue
		}
		if s.budget -= n; s.budget < 0 {
			return 0, false, nil
		}
		switch _, err := s.at(next); {
		case err == nil:
			return next, true, nil
		case !errors.Is(err, errBroken):
			return 0, false, err
		}
	}
	return 0, false, nil
}
