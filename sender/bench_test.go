package sender

import (
	"testing"

	"github.com/corehaul/corehaul/mem"
	"github.com/corehaul/corehaul/protocol"
)

// BenchmarkChunk reads, checks and encodes chunks, a third of whose pages are zero.
func BenchmarkChunk(b *testing.B) {
	for _, enc := range []protocol.Encoding{
		protocol.EncodingNone, protocol.EncodingSnappyPage, protocol.EncodingZstdPage, protocol.EncodingLZ4Block, protocol.EncodingZstdBlock,
	} {
		b.Run(enc.String(), func(b *testing.B) {
			img := &quietImage{fakeImage: &fakeImage{}}
			s, e := newSlot(testPage), newEncoder(testPage)
			s.wanted = append(s.wanted, mem.Extent{Start: 100, Count: 256})
			b.SetBytes(protocol.ChunkBytes)
			b.ReportAllocs()
			for b.Loop() {
				raw := s.fill(img, e.raw, testPage)
				if err := e.encode(&s.chunk, &s.encoded, len(raw), enc); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
