package vmcore_test

import (
	"bytes"
	"encoding/binary"
	"strings"
	"testing"

	"github.com/corehaul/corehaul/vmcore"
	"github.com/corehaul/corehaul/vmcore/vmcoretest"
)

// TestSmallNotesAreKept: device dumps stand before the notes of the CPUs, as in /proc/vmcore, and none of them alone
// is more than may be kept.
func TestSmallNotesAreKept(t *testing.T) {
	le := binary.LittleEndian
	var notes, small []byte
	for range 10 {
		notes = append(notes, vmcoretest.Note(le, "LINUX", 0x700, make([]byte, 900<<10))...)
	}
	small = append(small, vmcoretest.Prstatus(le, 42, nil)...)
	small = append(small, vmcoretest.VMCOREINFO(le, "OSRELEASE=6.1.0\n")...)
	notes = append(notes, small...)
	i := &vmcore.Info{ByteOrder: le}
	i.AddNotes(notes)
	if len(i.Notes) > vmcore.MaxNotes || len(i.Notes) < vmcore.MaxNotes-1<<20 || !bytes.HasSuffix(i.Notes, small) {
		t.Errorf("%d bytes are kept, the small notes at the end: %v", len(i.Notes), bytes.HasSuffix(i.Notes, small))
	}
	if release, _ := i.VMCOREINFO.String("OSRELEASE"); len(i.CPUs) != 1 || release != "6.1.0" || len(i.Warnings) != 1 || !strings.Contains(i.Warnings[0], "1 notes are left out") {
		t.Errorf("%d CPUs, warnings %q", len(i.CPUs), i.Warnings)
	}

	rest := append(bytes.Clone(notes), 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff)
	i = &vmcore.Info{ByteOrder: le}
	i.AddNotes(rest)
	if !bytes.HasSuffix(i.Notes, small) || len(i.Warnings) != 2 {
		t.Errorf("%d bytes are kept before a note that makes no sense, warnings %q", len(i.Notes), i.Warnings)
	}
}
