package dumpdir

import (
	"hash"
	"io"

	"github.com/corehaul/corehaul/vmcore"
)

// zeroRun is hashed in place of a hole. It stays in the cache of a CPU.
var zeroRun [64 << 10]byte

// hashHole adds the zeros of a hole of r at off to h, without reading them, and returns how many: at most those before
// end, which must not be beyond the end of the file, and a piece at a time. It is 0 if there is no hole.
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

// hashedAtOnce is how many zeros are hashed before a caller can stop it.
const hashedAtOnce = 8 << 20

func hashZeros(h hash.Hash, n int64) {
	for n > 0 {
		k := min(n, int64(len(zeroRun)))
		_, _ = h.Write(zeroRun[:k]) // a hash takes everything
		n -= k
	}
}
