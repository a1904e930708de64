package local_test

import (
	"testing"

	"github.com/corehaul/corehaul/dumpdir/dumpdirtest"
	"github.com/corehaul/corehaul/storage"
)

// TestHolesAreNotCounted stores the dump of a machine whose RAM lies at 1 TiB: retention must not count the bitmaps up to there.
func TestHolesAreNotCounted(t *testing.T) {
	s := open(t, t.TempDir(), storage.OpenOptions{})
	bring(t, dumpdirtest.NewMachineAt(1, 40, 16, 1<<40>>12), s.Create)
	e := wantListed(t, s, 1)[0]
	if length := e.Manifest.Bytes.VMCore; length < 64<<20 || e.Bytes() > 4<<20 || e.Holes+e.Bytes() < uint64(length) {
		t.Errorf("vmcore has %d bytes, of which %d are holes; the dump counts as %d", length, e.Holes, e.Bytes())
	}
}
