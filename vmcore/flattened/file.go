package flattened

import (
	"container/heap"
	"errors"
	"io"
	"math"
	"slices"
	"sort"

	"github.com/corehaul/corehaul/vmcore"
)

// File is the file inside a flattened file. It is an io.ReaderAt, a vmcore.Sparse and a vmcore.Holes, and safe for concurrent use.
type File struct {
	r       io.ReaderAt
	pieces  []piece
	have    Coverage // bytes of all records
	size    int64
	damaged error
}

// piece is a part of the reassembled file: bytes [off, end), at stream offset from.
type piece struct {
	off, end int64
	from     int64
}

// New reads the record headers of a flattened file of size bytes. Errors match vmcore.ErrUnknownFormat, ErrCorrupt,
// or ErrUnsupported for other versions of the format and for more than MaxRecords records. It opens a file that ends
// early; Damaged says so.
func New(r io.ReaderAt, size int64) (*File, error) {
	if size < headerLen {
		return nil, vmcore.ErrUnknownFormat
	}
	var b [32]byte
	if _, err := r.ReadAt(b[:], 0); err != nil {
		return nil, err
	}
	if err := checkHeader(b[:]); err != nil {
		return nil, err
	}
	f := &File{r: r}
	recs, err := f.scan(size)
	if err != nil {
		return nil, err
	}
	f.pieces = resolve(recs)
	for _, p := range f.pieces {
		f.have.Add(p.off, p.end-p.off)
	}
	return f, nil
}

// scan walks the record headers. The records are in stream order.
func (f *File) scan(size int64) ([]piece, error) {
	var recs []piece
	for at := int64(headerLen); ; {
		if size-at < recordLen {
			f.damaged = vmcore.Truncatedf("flattened file", at, "it ends before its end marker")
			return recs, nil
		}
		var b [recordLen]byte
		if n, err := f.r.ReadAt(b[:], at); n < recordLen {
			return nil, err
		}
		rec, err := decodeRecord(b[:], at)
		if err != nil {
			return nil, err
		}
		if rec.end() {
			return recs, nil
		}
		if len(recs) == MaxRecords {
			return nil, vmcore.Unsupportedf("flattened file", at, "more than %d records; rearrange it with makedumpfile -R", MaxRecords)
		}
		at += recordLen
		have := min(rec.size, size-at)
		if have > 0 {
			recs = append(recs, piece{off: rec.off, end: rec.off + have, from: at})
			f.size = max(f.size, rec.off+have)
		}
		at += have
		if have < rec.size {
			f.damaged = vmcore.Truncatedf("flattened record", at, "%d of %d bytes", have, rec.size)
			return recs, nil
		}
	}
}

// Size returns the size of the file inside.
func (f *File) Size() int64 { return f.size }

// Damaged returns nil if the end marker was found, otherwise an error that matches vmcore.ErrTruncated and names the
// place where the file ends.
func (f *File) Damaged() error { return f.damaged }

// From implements vmcore.Sparse: bytes without a record are absent.
func (f *File) From(off int64) int64 { return f.have.From(off) }

// Next implements vmcore.Sparse.
func (f *File) Next(off int64) (at int64, ok bool) { return f.have.Next(off) }

// NextData implements vmcore.Holes: the payload of a record may be a hole of the flattened file.
func (f *File) NextData(off int64) (at int64, ok bool) {
	i := sort.Search(len(f.pieces), func(i int) bool { return f.pieces[i].end > off })
	for _, p := range f.pieces[i:] {
		p = p.after(off)
		from, ok := vmcore.NextData(f.r, math.MaxInt64, p.from)
		if at := p.off + from - p.from; ok && at < p.end {
			return at, true
		}
	}
	return 0, false
}

// ReadAt implements io.ReaderAt. Bytes without a record are zero.
func (f *File) ReadAt(p []byte, off int64) (int, error) {
	if off < 0 {
		return 0, errors.New("flattened: negative offset")
	}
	i := sort.Search(len(f.pieces), func(i int) bool { return f.pieces[i].end > off })
	done := 0
	for done < len(p) && off < f.size {
		n, err := f.readSome(p[done:], off, i)
		done += n
		off += int64(n)
		if err != nil {
			return done, err
		}
		if i < len(f.pieces) && f.pieces[i].end <= off {
			i++
		}
	}
	if done < len(p) {
		return done, io.EOF
	}
	return done, nil
}

// readSome reads from offset off. Piece i is the first that ends after off.
func (f *File) readSome(p []byte, off int64, i int) (int, error) {
	if i == len(f.pieces) { // only when off is at the end
		return 0, io.EOF
	}
	c := f.pieces[i]
	if c.off > off {
		n := min(int64(len(p)), c.off-off)
		clear(p[:n])
		return int(n), nil
	}
	p = p[:min(int64(len(p)), c.end-off)]
	n, err := f.r.ReadAt(p, c.from+off-c.off)
	if n == len(p) {
		err = nil
	}
	return n, err
}

// resolve turns records in stream order into disjoint pieces in file order. Where records overlap, the later one
// wins. It sweeps over the file with a heap of the records that cover the current place, latest first.
func resolve(recs []piece) []piece {
	byOff := slices.Clone(recs)
	// slices.SortStableFunc would make much code for a type of this size, and the sender has to be small.
	sort.SliceStable(byOff, func(i, j int) bool { return byOff[i].off < byOff[j].off })
	out := recs[:0]
	if disjoint(byOff) {
		return append(out, byOff...)
	}
	var s sweep
	out = nil
	for len(byOff) > 0 || len(s) > 0 {
		if len(s) == 0 {
			heap.Push(&s, byOff[0])
			byOff = byOff[1:]
			continue
		}
		top := s[0]
		switch {
		case len(byOff) > 0 && byOff[0].off < top.end:
			next := byOff[0]
			byOff = byOff[1:]
			if next.from > top.from {
				out = emit(out, top, next.off)
				s[0] = top.after(next.off)
			}
			heap.Push(&s, next)
		default:
			out = emit(out, top, top.end)
			s.dropUntil(top.end)
		}
	}
	return out
}

func disjoint(p []piece) bool {
	for i := 1; i < len(p); i++ {
		if p[i].off < p[i-1].end {
			return false
		}
	}
	return true
}

// after returns the part of p from file offset off on.
func (p piece) after(off int64) piece {
	if off <= p.off {
		return p
	}
	return piece{off: off, end: p.end, from: p.from + off - p.off}
}

// emit appends p up to file offset to.
func emit(out []piece, p piece, to int64) []piece {
	if to <= p.off {
		return out
	}
	p.end = to
	return append(out, p)
}

// sweep is a heap of records, the latest in the stream first.
type sweep []piece

func (s sweep) Len() int           { return len(s) }
func (s sweep) Less(i, j int) bool { return s[i].from > s[j].from }
func (s sweep) Swap(i, j int)      { s[i], s[j] = s[j], s[i] }

// Push implements heap.Interface.
func (s *sweep) Push(x any) { *s = append(*s, x.(piece)) }

// Pop implements heap.Interface.
func (s *sweep) Pop() any {
	old := *s
	x := old[len(old)-1]
	*s = old[:len(old)-1]
	return x
}

// dropUntil removes records that end at or before off from the top, and makes the new top begin at off.
func (s *sweep) dropUntil(off int64) {
	for len(*s) > 0 && (*s)[0].end <= off {
		heap.Pop(s)
	}
	if len(*s) > 0 {
		(*s)[0] = (*s)[0].after(off)
	}
}
