package dumpdir

import (
	"fmt"
	"hash/crc32"

	"github.com/corehaul/corehaul/chunk"
)

// data checks every stored page, and that all other bytes are zero.
func (v *verifier) data() error {
	dec := NewPageDecoder(v.jr.plan.PageSize)
	page := make([]byte, v.jr.plan.PageSize)
	return v.jr.chunks(func(r *chunkRecord) error {
		gap := func() error { return v.zeros(r.offset, v.notZero("gap between chunks")) }
		if len(v.jr.broken) > 0 { // the chunk of a broken record may lie there
			gap = func() error { return v.skip(r.offset) }
		}
		if err := gap(); err != nil {
			return err
		}
		return v.chunkData(r, dec, page)
	})
}

// chunkData compares the pages of one chunk with its record: each stored page with its CRC-32C, and the decoded pages
// with the sender's checksum.
func (v *verifier) chunkData(r *chunkRecord, dec *PageDecoder, buf []byte) error {
	dec.sum.Reset()
	damaged, i, seq := false, 0, r.seq
	for _, e := range r.extents {
		if e.Kind == chunk.Zero {
			continue
		}
		for pfn := e.Start; pfn < e.End(); pfn++ {
			at, stored := v.pos, buf[:r.pages[i].Size]
			if err := v.next(stored); err != nil {
				return err
			}
			if what := checkStored(dec, r.pages[i], r.sums[i], stored); what != "" {
				damaged = true
				v.find(Finding{File: VMCoreName, Offset: at, Length: int64(len(stored)), Where: "page", PFN: &pfn, Chunk: &seq, Text: what})
			}
			i++
		}
	}
	if sum := dec.sum.Sum64(); !damaged && sum != r.rawSum {
		v.find(Finding{
			File: VMCoreName, Offset: r.offset, Length: r.bytes, Where: "chunk", Chunk: &seq,
			Text: fmt.Sprintf("xxh3 of its pages is %016x, the sender had %016x", sum, r.rawSum),
		})
	}
	return nil
}

// checkStored returns the damage of a stored page, and adds the decoded page to the chunk's sum.
func checkStored(dec *PageDecoder, rec PageRecord, sum uint32, stored []byte) string {
	if got := crc32.Checksum(stored, castagnoli); got != sum {
		return crcText(got, sum)
	}
	raw, err := dec.Page(rec, stored)
	if err != nil {
		return decodeText(err)
	}
	_, _ = dec.sum.Write(raw) // a hash takes everything
	return ""
}

func crcText(got, want uint32) string {
	return fmt.Sprintf("CRC-32C of the stored page is %08x, has to be %08x", got, want)
}

func decodeText(err error) string { return fmt.Sprintf("page does not decode: %v", err) }
