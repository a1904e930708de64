package protocol

import (
	"bytes"
	"errors"
	"iter"
	"math"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/corehaul/corehaul/chunk"
	"github.com/corehaul/corehaul/mem"
)

func extent(start, count uint64, kind chunk.Kind) chunk.Extent {
	return chunk.Extent{Extent: mem.Extent{Start: mem.PFN(start), Count: count}, Kind: kind}
}

// sampleChunks are valid chunks of a machine of 4 KiB pages with every kind of payload.
func sampleChunks() map[string]*Chunk {
	page := bytes.Repeat([]byte{7}, 4096)
	sum := RawSum(page)
	full := make([]chunk.Extent, 256)
	sizes := make([]uint32, 256)
	for i := range full {
		full[i], sizes[i] = extent(MaxPFN-1024+2*uint64(i), 1, chunk.Data), 4096
	}
	return map[string]*Chunk{
		"zero pages only":  {Seq: 5, RawSum: emptySum, Extents: []chunk.Extent{extent(9, 256, chunk.Zero)}},
		"raw page":         {Seq: 0, RawSum: sum, Extents: []chunk.Extent{extent(0, 1, chunk.Data)}, Payload: page},
		"page records":     {Seq: 1, RawSum: sum, Encoding: EncodingSnappyPage, Extents: []chunk.Extent{extent(3, 2, chunk.Data), extent(5, 1, chunk.Zero), extent(6, 1, chunk.Data)}, Sizes: []uint32{1, 4096, 3}, Payload: make([]byte, 4100)},
		"block":            {Seq: 2, RawSum: sum, Encoding: EncodingLZ4Block, Extents: []chunk.Extent{extent(3, 2, chunk.Data)}, Payload: make([]byte, 8191)},
		"as full as it is": {Seq: maxSeq, RawSum: sum, Encoding: EncodingZstdPage, Extents: full, Sizes: sizes, Payload: make([]byte, ChunkBytes)},
	}
}

var hugeParams = Params{PageSize: 4096, MaxPFN: MaxPFN, Level: 31}

func TestChunkRoundTrip(t *testing.T) {
	for name, ch := range sampleChunks() {
		t.Run(name, func(t *testing.T) {
			frame := encodeFrame(t, ch, hugeParams)
			got := decodeFrame(t, frame, hugeParams)
			if diff := cmp.Diff(ch, got, equalMessages); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			if limit := int(types[TypeChunk].limit); len(frame)-headerLen > limit {
				t.Errorf("%d bytes above the limit of %d", len(frame)-headerLen, limit)
			}
		})
	}
}

func TestChunkIsAView(t *testing.T) {
	payload := encodeFrame(t, sampleChunks()["raw page"], hugeParams)[headerLen:]
	var ch Chunk
	if err := ch.decode(payload, hugeParams); err != nil {
		t.Fatal(err)
	}
	if &ch.Payload[len(ch.Payload)-1] != &payload[len(payload)-1] {
		t.Error("the payload was copied")
	}
	if cap(ch.Payload) != len(ch.Payload) {
		t.Error("an append to the payload would write beyond it")
	}
}

// records yields the frame number and record of each data page of a chunk in a page
// encoding or EncodingNone. Records are views of Payload. It yields nothing for a
// block.
func (ch *Chunk) records(pageSize uint32) iter.Seq2[mem.PFN, []byte] {
	return func(yield func(mem.PFN, []byte) bool) {
		if ch.Encoding.Block() {
			return
		}
		rest, n := ch.Payload, 0
		for pfn := range ch.dataPFNs() {
			size := pageSize
			if ch.Encoding.Pages() {
				size = ch.Sizes[n]
			}
			if !yield(pfn, rest[:size:size]) {
				return
			}
			rest = rest[size:]
			n++
		}
	}
}

// dataPFNs yields the frame numbers of the data pages in the order of the payload.
func (ch *Chunk) dataPFNs() iter.Seq[mem.PFN] {
	return func(yield func(mem.PFN) bool) {
		for _, e := range ch.Extents {
			if e.Kind != chunk.Data {
				continue
			}
			for pfn := e.Start; pfn < e.End(); pfn++ {
				if !yield(pfn) {
					return
				}
			}
		}
	}
}

func TestChunkRecords(t *testing.T) {
	chunks := sampleChunks()
	records := func(ch *Chunk) (got map[mem.PFN]int) {
		got = make(map[mem.PFN]int)
		for pfn, rec := range ch.records(4096) {
			got[pfn] = len(rec)
		}
		return got
	}
	for name, want := range map[string]map[mem.PFN]int{
		"page records":    {3: 1, 4: 4096, 6: 3},
		"raw page":        {0: 4096},
		"zero pages only": {},
		"block":           {},
	} {
		if diff := cmp.Diff(want, records(chunks[name])); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
	ch := chunks["page records"]
	if ch.DataPages() != 3 || ch.ZeroPages() != 1 {
		t.Errorf("got %d data and %d zero pages, want 3 and 1", ch.DataPages(), ch.ZeroPages())
	}
	for range ch.records(4096) {
		break // an early end must not go on
	}
}

func TestChunkCheckRefuses(t *testing.T) {
	p := Params{PageSize: 4096, MaxPFN: 1000}
	good := func() *Chunk {
		return &Chunk{
			Seq: 1, Encoding: EncodingSnappyPage, RawSum: 1,
			Extents: []chunk.Extent{extent(3, 2, chunk.Data), extent(5, 1, chunk.Zero)}, Sizes: []uint32{1, 2}, Payload: []byte{1, 2, 3},
		}
	}
	if err := good().Check(p); err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		name   string
		change func(ch *Chunk)
		want   Code
	}{
		{"seq", func(ch *Chunk) { ch.Seq = maxSeq + 1 }, CodeTooLarge},
		{"no extents", func(ch *Chunk) { ch.Extents = nil }, CodeTooLarge},
		{"too many extents", func(ch *Chunk) { ch.Extents = make([]chunk.Extent, 257) }, CodeTooLarge},
		{"empty extent", func(ch *Chunk) { ch.Extents[1].Count = 0 }, CodeNotPlanned},
		{"beyond max_pfn", func(ch *Chunk) { ch.Extents[1].Start = 1000 }, CodeNotPlanned},
		{"wraps", func(ch *Chunk) { ch.Extents[1] = extent(math.MaxUint64, 2, chunk.Zero) }, CodeNotPlanned},
		{"too many pages", func(ch *Chunk) { ch.Extents[1] = extent(5, 255, chunk.Zero) }, CodeTooLarge},
		{"overlap", func(ch *Chunk) { ch.Extents[1].Start = 4 }, CodeBadMessage},
		{"not joined", func(ch *Chunk) { ch.Extents[1].Kind = chunk.Data }, CodeBadMessage},
		{"unknown kind", func(ch *Chunk) { ch.Extents[1].Kind = 2 }, CodeBadMessage},
		{"unknown encoding", func(ch *Chunk) { ch.Encoding = 5 }, CodeBadEncoding},
		{"record of no bytes", func(ch *Chunk) { ch.Sizes[0] = 0 }, CodeBadMessage},
		{"record above a page", func(ch *Chunk) { ch.Sizes[0] = 4097 }, CodeBadMessage},
		{"records shorter than the payload", func(ch *Chunk) { ch.Payload = make([]byte, 4) }, CodeBadMessage},
		{"records longer than the payload", func(ch *Chunk) { ch.Payload = make([]byte, 2) }, CodeBadMessage},
		{"record missing", func(ch *Chunk) { ch.Sizes = ch.Sizes[:1] }, CodeBadMessage},
		{"sizes with a block", func(ch *Chunk) { ch.Encoding = EncodingLZ4Block }, CodeBadMessage},
		{"block that did not shrink", func(ch *Chunk) { *ch = *block(8192) }, CodeBadMessage},
		{"empty block", func(ch *Chunk) { *ch = *block(0) }, CodeBadMessage},
		{"raw pages missing", func(ch *Chunk) { *ch = *block(8191); ch.Encoding = EncodingNone }, CodeBadMessage},
		{"data for zero pages", func(ch *Chunk) { ch.Extents[0].Kind = chunk.Zero; ch.Extents[1].Start = 9; ch.Sizes = nil }, CodeBadMessage},
		{"checksum of no pages", func(ch *Chunk) {
			*ch = Chunk{Extents: []chunk.Extent{extent(1, 1, chunk.Zero)}}
		}, CodeBadMessage},
	} {
		t.Run(tc.name, func(t *testing.T) {
			ch := good()
			tc.change(ch)
			if err := ch.Check(p); !errors.Is(err, tc.want) {
				t.Errorf("got %v, want %s", err, tc.want)
			}
			if _, err := ch.appendPayload(nil, p); err == nil {
				t.Error("it can be encoded")
			}
		})
	}
}

func block(n int) *Chunk {
	return &Chunk{Encoding: EncodingLZ4Block, RawSum: 1, Extents: []chunk.Extent{extent(3, 2, chunk.Data)}, Payload: make([]byte, n)}
}

func TestChunkDecodeRefuses(t *testing.T) {
	good := encodeFrame(t, sampleChunks()["page records"], hugeParams)[headerLen:]
	for _, tc := range []struct {
		name   string
		change func(b []byte) []byte
		want   Code
	}{
		{"reserved byte", func(b []byte) []byte { b[17] = 1; return b }, CodeBadMessage},
		{"extents beyond the payload", func(b []byte) []byte { b[18] = 200; return b[:30] }, CodeBadMessage},
		{"more extents than pages", func(b []byte) []byte { b[19] = 2; return b }, CodeTooLarge},
		{"one byte more", func(b []byte) []byte { return append(b, 0) }, CodeBadMessage},
		{"reserved kind", func(b []byte) []byte { b[21] |= 3; return b }, CodeBadMessage},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var ch Chunk
			if err := ch.decode(tc.change(bytes.Clone(good)), hugeParams); !errors.Is(err, tc.want) {
				t.Errorf("got %v, want %s", err, tc.want)
			}
		})
	}
	for n := range len(good) {
		var ch Chunk
		if err := ch.decode(good[:n], hugeParams); err == nil {
			t.Fatalf("cut after %d of %d bytes: no error", n, len(good))
		}
	}
}

func TestEmptySum(t *testing.T) {
	if got := RawSum(nil); got != emptySum {
		t.Errorf("got %#x, want %#x", got, uint64(emptySum))
	}
}

func TestChunkPages(t *testing.T) {
	for size, want := range map[uint32]uint32{4096: 256, 16384: 64, 65536: 16, 0: 0, 2048: 0, 5000: 0, 131072: 0, 1 << 31: 0} {
		if got := ChunkPages(size); got != want {
			t.Errorf("%d bytes: got %d, want %d", size, got, want)
		}
	}
}
