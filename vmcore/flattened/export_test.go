package flattened

import (
	"errors"
	"io"
)

// Stats says what Reassemble did.
type Stats struct {
	Records  uint64
	FileSize int64 // end of the last byte of the reassembled file
	Stream   int64 // bytes of the stream up to the end marker, which is included
}

// need returns how many bytes are to come before the Assembler knows what follows them; 0 after the end marker.
func (a *Assembler) need() int64 {
	switch {
	case a.done:
		return 0
	case a.rec.size > 0:
		return a.rec.size
	}
	return int64(a.want - len(a.head))
}

// Reassemble reads a flattened stream up to its end marker, and no byte more, and writes its records to
// w as they come. The error matches vmcore.ErrTruncated when the end marker did not come.
func Reassemble(w io.WriterAt, r io.Reader) (st Stats, err error) {
	a := NewAssembler(w, Limits{})
	defer func() { st.FileSize, st.Stream = a.have.End(), a.at }()
	buf := make([]byte, 256<<10)
	for !a.done {
		inHeader := a.rec.size == 0
		n, err := r.Read(buf[:min(int64(len(buf)), a.need())])
		if _, werr := a.Write(buf[:n]); werr != nil {
			return st, werr
		}
		if inHeader && a.rec.size > 0 {
			st.Records++
		}
		if a.done || err == nil {
			continue
		}
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			err = a.Close()
		}
		return st, err
	}
	return st, nil
}
