package vmcore

import "io"

// Sparse is an optional interface of a dump's io.ReaderAt that knows which bytes are present. Missing bytes read as zero,
// and only a Sparse tells them from zeros of the dump. Its methods are as safe for concurrent use as ReadAt.
type Sparse interface {
	// From returns how many bytes from off on are present without a gap.
	From(off int64) int64
	// Next returns the offset of the first present byte at or behind off. ok is false if there is none.
	Next(off int64) (at int64, ok bool)
}

// BytesFrom returns how many of the n bytes from off on are present without a gap in a file of size bytes. n must not be
// negative.
func BytesFrom(r io.ReaderAt, size, off, n int64) int64 {
	if off < 0 || off >= size {
		return 0
	}
	n = min(n, size-off)
	if s, ok := r.(Sparse); ok {
		return min(n, s.From(off))
	}
	return n
}

// HasBytes reports whether all n bytes from off on are present in a file of size bytes.
func HasBytes(r io.ReaderAt, size, off, n int64) bool { return BytesFrom(r, size, off, n) == n }

// NextBytes returns the offset of the first present byte at or behind off in a file of size bytes. ok is false if there is
// none.
func NextBytes(r io.ReaderAt, size, off int64) (at int64, ok bool) {
	if s, isSparse := r.(Sparse); isSparse {
		if off, ok = s.Next(off); !ok {
			return 0, false
		}
	}
	return off, off < size
}

// Holes is an optional interface of a dump's io.ReaderAt that finds the holes of a file without reading them. Unlike the
// gaps of a Sparse, holes are zeros of the dump. NextData is as safe for concurrent use as ReadAt.
type Holes interface {
	// NextData returns the offset of the first byte at or behind off outside holes. ok is false if there is none.
	NextData(off int64) (at int64, ok bool)
}

// NextData returns the offset of the first byte at or behind off that may not be zero, in a file of size bytes. It skips
// holes and missing bytes of a Sparse. ok is false if there is none.
func NextData(r io.ReaderAt, size, off int64) (at int64, ok bool) {
	h, isHoles := r.(Holes)
	if !isHoles {
		return NextBytes(r, size, off)
	}
	if off, ok = h.NextData(off); !ok {
		return 0, false
	}
	return off, off < size
}
