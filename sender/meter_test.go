package sender

import (
	"fmt"
	"io"
	"testing"
	"testing/synctest"
	"time"

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

// TestRateAndTimeLeft sends at one rate, then at half of it: within two spans the new one is told.
func TestRateAndTimeLeft(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var meter Meter
		meter.begin(nil)
		meter.plan(100_000, 10_000, 4096)
		if p := meter.Progress(); p.Rate != 0 || p.Left != 0 {
			t.Errorf("before the first chunk: %+v", p)
		}
		send := func(pages uint64, seconds int) Progress {
			for range seconds {
				time.Sleep(time.Second)
				meter.durable(flight{pages: pages})
			}
			return meter.Progress()
		}
		if p := send(1000, 20); p.Rate != 1000*4096 || p.Left != 70*time.Second {
			t.Errorf("at 1000 pages a second: %+v", p)
		}
		if p := send(500, 20); p.Rate != 500*4096 || p.Left != 120*time.Second {
			t.Errorf("at 500 pages a second: %+v", p)
		}
		time.Sleep(time.Hour)
		if p := meter.Progress(); p.Rate > 5*4096 {
			t.Errorf("after an hour without an answer: %+v", p)
		}
	})
}
