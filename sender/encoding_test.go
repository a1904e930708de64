package sender

import (
	"testing"

	"github.com/corehaul/corehaul/internal/race"
	"github.com/corehaul/corehaul/mem"
	"github.com/corehaul/corehaul/protocol"
)

// TestNoAllocations holds the promise of constant memory where it matters most: a chunk
// in steady state allocates nothing. The zstd library makes one small allocation for
// each page in which it finds nothing to compress.
func TestNoAllocations(t *testing.T) {
	if race.Enabled {
		t.Skip("the race detector makes sync.Pool forget at random")
	}
	_, img := newFakeSource(t)
	quiet := &quietImage{fakeImage: img}
	for _, enc := range []protocol.Encoding{
		protocol.EncodingNone, protocol.EncodingSnappyPage, protocol.EncodingZstdPage, protocol.EncodingLZ4Block, protocol.EncodingZstdBlock,
	} {
		s, e := newSlot(testPage), newEncoder(testPage)
		s.wanted = append(s.wanted, mem.Extent{Start: 100, Count: 100}, mem.Extent{Start: 300, Count: 156})
		work := func() {
			raw := s.fill(quiet, e.raw, testPage)
			if err := e.encode(&s.chunk, &s.encoded, len(raw), enc); err != nil {
				t.Fatal(err)
			}
		}
		work()
		limit := 1.0
		if enc == protocol.EncodingZstdPage {
			limit = float64(len(s.encoded.sizes))
		}
		if n := testing.AllocsPerRun(10, work); n > limit {
			t.Errorf("%s: %.1f allocations for a chunk", enc, n)
		}
	}
}

// quietImage has its pages ready.
type quietImage struct {
	*fakeImage
	cache map[mem.PFN][]byte
}

func (q *quietImage) ReadPages(p []byte, pfn mem.PFN) error {
	if q.cache == nil {
		q.cache = map[mem.PFN][]byte{}
	}
	for ; len(p) > 0; p, pfn = p[testPage:], pfn+1 {
		page, ok := q.cache[pfn]
		if !ok {
			page = fakePage(pfn)
			q.cache[pfn] = page
		}
		copy(p, page)
	}
	return nil
}

func TestLadders(t *testing.T) {
	for _, name := range EncodingNames {
		if l, err := ladderOf(name); err != nil || len(l) == 0 {
			t.Errorf("%s: %v, %v", name, l, err)
		}
	}
	if _, err := ladderOf("gzip"); err == nil {
		t.Error("gzip is known")
	}
	if got := usable(autoLadder, protocol.Encodings{protocol.EncodingZstdPage}); len(got) != 1 || got[0] != protocol.EncodingZstdPage {
		t.Errorf("usable: %v", got)
	}
	if got := usable(autoLadder, nil); len(got) != 1 || got[0] != protocol.EncodingNone {
		t.Errorf("usable of nothing: %v", got)
	}
}
