package kdumpclients

import (
	"testing"

	"github.com/corehaul/corehaul/dumpdir"
	"github.com/corehaul/corehaul/vmcore/vmcoretest"
)

// TestImportLargeNotes: a dump is made without the notes that are too large to be kept.
func TestImportLargeNotes(t *testing.T) {
	const text = "OSRELEASE=6.1.0-text\nPAGESIZE=4096\nCRASHTIME=1700000000\n"
	notes := append(vmcoretest.Note(le, "LINUX", 0x700, make([]byte, 20<<20)), vmcoretest.VMCOREINFO(le, text)...)
	pages := vmcoretest.Pages(1, 8, 4096)
	for name, file := range map[string][]byte{
		"kdump-compressed": (&vmcoretest.Kdump{Notes: notes, Pages: pages}).Bytes(),
		"ELF":              (&vmcoretest.Core{Machine: 62, Notes: notes, Loads: []vmcoretest.Load{{Paddr: 0x1000, Data: pages}}}).Bytes(),
	} {
		t.Run(name, func(t *testing.T) {
			s := open(t, t.TempDir())
			redhat(t, treeOf(t, s, "n1"), file)
			drain(t, s)
			e := only(t, s)
			if e.Manifest.State != dumpdir.StateComplete || e.Manifest.Release != "6.1.0-text" {
				t.Errorf("%+v", e.Manifest)
			}
			check(t, s, e)
		})
	}
}
