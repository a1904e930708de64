package protocol

import (
	"encoding/binary"
	"iter"

	"github.com/corehaul/corehaul/mem"
)

// RAM is a piece of the list of physical address ranges that are RAM of the system kernel, ascending and disjoint,
// from the PT_LOADs of /proc/vmcore. Ranges is valid until the next Read.
//
// Payload: for each range two numbers as shortest LEB128: the bytes between the end
// of the range before (address 0 for the first of a piece) and its start, and its
// length in bytes. Both fit 2^56, the last address of MaxPFN pages of 64 KiB.
type RAM struct {
	Ranges []mem.Range
}

const maxAddr = MaxPFN * MaxPageSize

// ramPieceRanges is a number of ranges that always fits into one piece: two numbers of nine bytes each.
const ramPieceRanges = PieceBytes / 18

// RAMPieces splits a list of ranges into messages.
func RAMPieces(ranges []mem.Range) iter.Seq[*RAM] {
	return func(yield func(*RAM) bool) {
		for len(ranges) > 0 {
			n := min(len(ranges), ramPieceRanges)
			if !yield(&RAM{Ranges: ranges[:n]}) {
				return
			}
			ranges = ranges[n:]
		}
	}
}

func (m *RAM) appendPayload(dst []byte, _ Params) ([]byte, error) {
	end := mem.PhysAddr(0)
	for i, r := range m.Ranges {
		if r.Start < end || r.End <= r.Start || r.End > maxAddr {
			return nil, Errorf(CodeBadMessage, "RAM range %d, %s: empty, before the last one or beyond %#x", i, r, uint64(maxAddr))
		}
		dst = binary.AppendUvarint(dst, uint64(r.Start-end))
		dst = binary.AppendUvarint(dst, r.Len())
		end = r.End
	}
	return dst, nil
}

// decodeRAM reuses the memory of ranges.
func decodeRAM(p []byte, ranges []mem.Range) ([]mem.Range, error) {
	c := cursor{what: "RAM", b: p}
	end := uint64(0)
	for c.left() > 0 && c.err == nil {
		start := end + c.upTo(maxAddr, "gap")
		size := c.upTo(maxAddr, "length")
		end = start + size
		if size == 0 || end > maxAddr {
			c.fail(CodeBadMessage, "range of %d bytes at %#x: empty or beyond %#x", size, start, uint64(maxAddr))
		}
		ranges = append(ranges, mem.Range{Start: mem.PhysAddr(start), End: mem.PhysAddr(end)})
	}
	if c.err != nil {
		return nil, c.err
	}
	return ranges, nil
}
