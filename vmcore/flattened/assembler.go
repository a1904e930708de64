package flattened

import (
	"io"

	"github.com/corehaul/corehaul/vmcore"
)

// Limits bound what a stream may do. Zero fields take the defaults.
type Limits struct {
	// FileSize is the largest size of the reassembled file; MaxFileSize by default.
	FileSize int64
	// Rewritten is how many bytes may overwrite others: enough for an erased or corrected header, and a limit for an
	// endless stream. DefaultRewritten by default.
	Rewritten int64
	// Pieces is the largest number of pieces with gaps between them: makedumpfile fills a few regions one after the
	// other. DefaultPieces by default.
	Pieces int
}

// Defaults of Limits.
const (
	DefaultRewritten = 1 << 30
	DefaultPieces    = 1 << 16
)

// maxTrailing bounds the bytes after the end marker: padding of a block device or of dd.
const maxTrailing = 1 << 20

// Assembler is an io.Writer for a flattened stream, in pieces of any size. It reassembles the inner file. It writes
// payload at once and buffers at most a record header. It repeats its first error.
type Assembler struct {
	w     io.WriterAt
	limit Limits
	have  Coverage
	at    int64 // bytes of the stream that were used, without what follows the end marker
	err   error

	head     []byte // the beginning of a header or record header
	want     int    // length of it
	begun    bool   // the stream header is complete
	rec      record // the rest of the current record
	done     bool   // the end marker came
	trailing int64
}

// NewAssembler returns an Assembler that writes to w.
func NewAssembler(w io.WriterAt, limit Limits) *Assembler {
	if limit.FileSize == 0 {
		limit.FileSize = MaxFileSize
	}
	if limit.Rewritten == 0 {
		limit.Rewritten = DefaultRewritten
	}
	if limit.Pieces == 0 {
		limit.Pieces = DefaultPieces
	}
	return &Assembler{w: w, limit: limit, want: headerLen}
}

// Write takes the next bytes of the stream. Errors match vmcore.ErrUnknownFormat, ErrUnsupported or ErrCorrupt (also
// beyond the limits), or come from the underlying writer. It drops bytes after the end marker.
func (a *Assembler) Write(p []byte) (int, error) {
	n := 0
	for n < len(p) && a.err == nil {
		used, err := a.step(p[n:])
		n += used
		a.err = err
	}
	return n, a.err
}

// step consumes at least one byte of p, or returns an error.
func (a *Assembler) step(p []byte) (int, error) {
	switch {
	case a.done:
		a.trailing += int64(len(p))
		if a.trailing > maxTrailing {
			return 0, vmcore.Corruptf("flattened file", a.at, "more than %d bytes follow the end marker", maxTrailing)
		}
		return len(p), nil
	case a.rec.size > 0:
		return a.payload(p[:min(int64(len(p)), a.rec.size)])
	}
	n := min(len(p), a.want-len(a.head))
	a.head = append(a.head, p[:n]...)
	a.at += int64(n)
	if len(a.head) < a.want {
		return n, nil
	}
	return n, a.header()
}

// header handles a complete header.
func (a *Assembler) header() error {
	head := a.head
	a.head = a.head[:0]
	if !a.begun {
		a.begun, a.want = true, recordLen
		return checkHeader(head)
	}
	at := a.at - recordLen
	rec, err := decodeRecord(head, at)
	switch {
	case err != nil:
		return err
	case rec.end():
		a.done = true
	case rec.off > a.limit.FileSize || rec.size > a.limit.FileSize-rec.off:
		return vmcore.Corruptf("flattened record", at, "%d bytes at offset %d, beyond any file of %d bytes", rec.size, rec.off, a.limit.FileSize)
	default:
		a.rec = rec
	}
	return nil
}

func (a *Assembler) payload(p []byte) (int, error) {
	n, err := a.w.WriteAt(p, a.rec.off)
	fresh := a.have.Add(a.rec.off, int64(n))
	a.rec.off += int64(n)
	a.rec.size -= int64(n)
	a.at += int64(n)
	a.limit.Rewritten -= int64(n) - fresh
	switch {
	case err != nil:
		return n, err
	case a.limit.Rewritten < 0:
		return n, vmcore.Corruptf("flattened record", a.at, "the same bytes are written again and again")
	case a.have.Spans() > a.limit.Pieces:
		return n, vmcore.Corruptf("flattened record", a.at, "more than %d pieces with gaps between them", a.limit.Pieces)
	}
	return n, nil
}

// Done reports whether the end marker came. Only the end marker proves that the stream is complete.
func (a *Assembler) Done() bool { return a.done }

// Close returns the error of the stream if it ends here: one that matches vmcore.ErrTruncated without an end marker,
// or that of Write.
func (a *Assembler) Close() error {
	if a.err == nil && !a.done {
		what := "flattened record"
		if !a.begun {
			what = "flattened header"
		}
		return vmcore.Truncatedf(what, a.at, "the stream ends before its end marker")
	}
	return a.err
}

// Coverage returns the written bytes of the file. It is valid until the next Write and must not be changed.
func (a *Assembler) Coverage() *Coverage { return &a.have }
