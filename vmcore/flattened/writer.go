package flattened

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// Writer writes a flattened stream. It buffers nothing, so w can be a pipe. It is not safe for concurrent use.
type Writer struct {
	w   io.Writer
	err error // the first failure of w, or errClosed
}

// errClosed: a record after the end marker would be lost.
var errClosed = errors.New("flattened: stream is closed")

// NewWriter begins a flattened stream on w.
func NewWriter(w io.Writer) (*Writer, error) {
	block := make([]byte, headerLen)
	copy(block, Signature)
	binary.BigEndian.PutUint64(block[signatureLen:], typeFlat)
	binary.BigEndian.PutUint64(block[signatureLen+8:], versionFlat)
	_, err := w.Write(block)
	return &Writer{w: w, err: err}, err
}

// WriteAt writes one record: p lies at offset off of the inner file. An empty p writes nothing, because readers
// refuse a record of no bytes.
func (f *Writer) WriteAt(p []byte, off int64) (int, error) {
	if f.err != nil || len(p) == 0 {
		return 0, f.err
	}
	if off < 0 || off > MaxFileSize-int64(len(p)) {
		return 0, fmt.Errorf("flattened: record of %d bytes at offset %d is out of range", len(p), off)
	}
	if err := f.record(off, int64(len(p))); err != nil {
		return 0, err
	}
	n, err := f.w.Write(p)
	f.err = err
	return n, err
}

// Close writes the end marker. Without it, readers treat the stream as truncated. It does not close the underlying
// stream.
func (f *Writer) Close() error {
	if f.err != nil {
		return f.err
	}
	if err := f.record(endMarker, endMarker); err != nil {
		return err
	}
	f.err = errClosed
	return nil
}

// endMarker is both numbers of the last record header.
const endMarker = -1

func (f *Writer) record(off, size int64) error {
	head := binary.BigEndian.AppendUint64(make([]byte, 0, recordLen), uint64(off))
	head = binary.BigEndian.AppendUint64(head, uint64(size))
	_, f.err = f.w.Write(head)
	return f.err
}
