package kdumpfile_test

import (
	"bytes"
	"testing"

	"github.com/corehaul/corehaul/internal/race"
	"github.com/corehaul/corehaul/vmcore/kdumpfile"
	"github.com/corehaul/corehaul/vmcore/vmcoretest"
)

// TestNoAllocations counts nothing under the race detector: pools forget on purpose there.
func TestNoAllocations(t *testing.T) {
	page := vmcoretest.Pages(3, 2, 4096)[4096:]
	dst, got := make([]byte, 8192), make([]byte, 4096)
	for _, c := range writable {
		e, err := kdumpfile.NewEncoder(c, 0)
		if err != nil {
			t.Fatal(err)
		}
		stored, flags := e.EncodePage(nil, page)
		stored = bytes.Clone(stored)
		encode := testing.AllocsPerRun(200, func() {
			e.EncodePage(dst, page)
			e.EncodePage(nil, page)
		})
		decode := testing.AllocsPerRun(200, func() {
			if err := kdumpfile.DecodePage(got, stored, flags); err != nil {
				t.Error(err)
			}
		})
		// Pools may be emptied by the garbage collector now and then.
		if (encode > 0.5 || decode > 0.5) && !race.Enabled {
			t.Errorf("%v: %v allocations to encode a page, %v to decode one", c, encode, decode)
		}
	}
}
