package sender

import (
	"encoding/binary"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/corehaul/corehaul/protocol"
	"github.com/corehaul/corehaul/vmcore/vmcoretest"
)

// TestSendLargeNotes: a dump is sent without the notes that the wire has no room for.
func TestSendLargeNotes(t *testing.T) {
	le := binary.LittleEndian
	notes := func(n int) []byte {
		return append(vmcoretest.Note(le, "LINUX", 0x700, make([]byte, n)), vmcoretest.VMCOREINFO(le, "OSRELEASE=6.1.0-text\nPAGESIZE=4096\nCRASHTIME=1700000000\n")...)
	}
	pages := vmcoretest.Pages(1, 8, 4096)
	for _, tc := range []struct {
		name string
		file []byte
	}{
		{"ELF", (&vmcoretest.Core{Machine: 62, Notes: notes(10 << 20), Loads: []vmcoretest.Load{{Paddr: 0x1000, Data: pages}}}).Bytes()},
		{"kdump-compressed", (&vmcoretest.Kdump{Notes: notes(10 << 20), Pages: pages}).Bytes()},
		{"kdump-compressed, device dumps", (&vmcoretest.Kdump{Notes: notes(70 << 20), Pages: pages}).Bytes()},
	} {
		t.Run(tc.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "vmcore")
			if err := os.WriteFile(path, tc.file, 0o600); err != nil {
				t.Fatal(err)
			}
			src, err := Open(path)
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = src.Close() }() // only read
			if w := strings.Join(src.Warnings(), "|"); !strings.Contains(w, "notes are too large") {
				t.Errorf("warnings: %q", w)
			}
			f := newFakeReceiver(t)
			opts := options(f)
			opts.Log = nil
			res, err := Send(t.Context(), src, opts)
			if err != nil || res.State != protocol.StateComplete {
				t.Error(res, err)
			}
		})
	}
}
