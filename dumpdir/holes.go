package dumpdir

import (
	"hash"
	"io"

	"github.com/corehaul/corehaul/vmcore"
)

// zeroRun is hashed in place of a hole. It is small enough for the cache of a CPU.
var zeroRun [64 << 10]byte

// hashHole writes the zeros of a hole of r at off to h without reading them, and returns their number. It stops at end, which
// must be within the file, and after hashedAtOnce bytes. It returns 0 if there is no hole at off.
func hashHole(h hash.Hash, r io.ReaderAt, off, end int64) int64 {
	holes, ok := r.(vmcore.Holes)
	if !ok {
		return 0
	}
	if at, more := holes.NextData(off); more {
		end = min(end, at)
	}
	n := max(0, end-off)
	if n = min(n, hashedAtOnce); n > 0 {
		hashZeros(h, n)
	}
	return n
}

// hashedAtOnce bounds the zeros of one call of hashHole, so that the caller can cancel.
const hashedAtOnce = 8 << 20

func hashZeros(h hash.Hash, n int64) {
	for n > 0 {
		k := min(n, int64(len(zeroRun)))
		_, _ = h.Write(zeroRun[:k]) // a hash never fails
		n -= k
	}
}
