package sender

import (
	"fmt"
	"io"
	"testing"

	"github.com/corehaul/corehaul/mem"
)

// Encoders are done in any order. The lost pages that the receiver hears of are the first ones of the
// plan all the same, and a chunk that is read again counts once.
func TestLostPagesAreNamedInTheOrderOfThePlan(t *testing.T) {
	var meter Meter
	told := 0
	meter.begin(func(LostPage) { told++ })
	const chunks, each = 5, 5
	for _, seq := range []uint64{4, 2, 0, 3, 2, 1} {
		var pages []LostPage
		for i := range mem.PFN(each) {
			pages = append(pages, LostPage{PFN: mem.PFN(seq)*256 + i, Err: io.ErrUnexpectedEOF})
		}
		meter.addLost(seq, pages)
	}
	if got := meter.Progress().Lost; got != chunks*each {
		t.Errorf("%d lost pages, want %d", got, chunks*each)
	}
	if told != maxLostNoted {
		t.Errorf("told of %d pages, want %d", told, maxLostNoted)
	}
	lines := meter.lostLines()
	if len(lines) != maxLostNoted {
		t.Fatalf("%d lines, want %d: %q", len(lines), maxLostNoted, lines)
	}
	for i, line := range lines {
		if want := fmt.Sprintf("pfn %d: unexpected EOF", i/each*256+i%each); line != want {
			t.Errorf("line %d: got %q, want %q", i, line, want)
		}
	}
}
