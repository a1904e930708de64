package dumpdir

import (
	"encoding/binary"
	"testing"

	"github.com/corehaul/corehaul/vmcore"
)

// TestFactsOfOlderJournals: a dump that was stored with erased data before the sub header
// named it is still the same file, byte for byte, and an older journal has no later flags.
func TestFactsOfOlderJournals(t *testing.T) {
	f := *exampleFacts()
	f.Notes = vmcore.AppendERASEINFO(nil, binary.LittleEndian, []byte("erase jiffies size 8\n"))
	old, _, _, ok := decodeFacts(encodeFacts(&f), journalVersion1)
	if !ok {
		t.Fatal("not decoded")
	}
	old.Notes = f.Notes
	front, err := old.header().EncodeFront(false)
	if err != nil || binary.LittleEndian.Uint64(front[4096+64:]) != 0 {
		t.Errorf("offset_eraseinfo %#x, %v, want 0 as it was written", binary.LittleEndian.Uint64(front[4096+64:]), err)
	}
	f.eraseinfo = true
	for version, want := range map[uint16]bool{journalVersion1: false, journalVersion2: true} {
		if _, _, _, ok := decodeFacts(encodeFacts(&f), version); ok != want {
			t.Errorf("version %d: decoded %v, want %v", version, ok, want)
		}
	}
}
