package vmcore

import "io"

// Sparse is an optional power of the io.ReaderAt from which a dump is read: it knows which of its
// bytes were ever written. Other bytes read as zero, and only a Sparse distinguishes them from
// zeros that belong to the dump. Implementations are as safe for concurrent use as their ReadAt.
type Sparse interface {
	// From returns how many bytes from off on are there without a gap.
	From(off int64) int64
	// Next returns the offset of the first byte at or behind off that is there; ok is false
	// when there is none.
	Next(off int64) (at int64, ok bool)
}

// BytesFrom returns how many of the n bytes from off on a file of so many bytes has without a gap. n
// is not negative.
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

// HasBytes reports whether a file of so many bytes has all of the n bytes from off on.
func HasBytes(r io.ReaderAt, size, off, n int64) bool { return BytesFrom(r, size, off, n) == n }

// NextBytes returns the offset of the first byte at or behind off that a file of so many bytes has; ok is
// false when there is none.
func NextBytes(r io.ReaderAt, size, off int64) (at int64, ok bool) {
	if s, isSparse := r.(Sparse); isSparse {
		if off, ok = s.Next(off); !ok {
			return 0, false
		}
	}
	return off, off < size
}
