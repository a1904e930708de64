package kdumpfile

import "github.com/corehaul/corehaul/mem"

// rankIndex has the number of bits of a bitmap below each of its non-empty blocks: 8 bytes for 32768 page frames.
// Chunks without a bit take no memory, so the index grows with the RAM of the machine and not with its highest
// address.
type rankIndex struct {
	chunks []*[rankChunk]uint64
	total  uint64
}

const rankChunk = 512 // blocks

func newRankIndex(maxPFN mem.PFN) *rankIndex {
	blocks := uint64(maxPFN+bitBlockPFN-1) / bitBlockPFN
	return &rankIndex{chunks: make([]*[rankChunk]uint64, (blocks+rankChunk-1)/rankChunk)}
}

// add adds block n. Blocks come in ascending order.
func (x *rankIndex) add(n int64, b *bitBlock) {
	c := &x.chunks[n/rankChunk]
	if *c == nil {
		*c = new([rankChunk]uint64)
	}
	(*c)[n%rankChunk] = x.total
	x.total += b.count(bitBlockPFN)
}

// has reports whether block n may have a bit set.
func (x *rankIndex) has(n int64) bool { return x.chunks[n/rankChunk] != nil }

// before returns the number of bits set below block n, which must have been added.
func (x *rankIndex) before(n int64) uint64 {
	c := x.chunks[n/rankChunk]
	if c == nil {
		return 0
	}
	return c[n%rankChunk]
}
