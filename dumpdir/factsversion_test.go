package dumpdir_test

import (
	"encoding/binary"
	"path"
	"testing"

	"github.com/corehaul/corehaul/dumpdir"
	"github.com/corehaul/corehaul/dumpdir/dumpdirtest"
	"github.com/corehaul/corehaul/vmcore"
)

// journalVersionOf returns the version in the journal's header.
func journalVersionOf(t *testing.T, fsys *dumpdirtest.FS) uint16 {
	t.Helper()
	b, ok := fsys.Bytes(path.Join(dir, dumpdir.JournalName))
	if !ok {
		t.Fatal("no journal")
	}
	return binary.LittleEndian.Uint16(b[8:])
}

// TestFactsOfReencodedHeaders: what the journal got a place for later (struct pages of
// excluded pages left out, erased data that the sub header names) is in the stored file, also
// after a recovery that writes the journal anew; dumps without it keep the older version.
func TestFactsOfReencodedHeaders(t *testing.T) {
	const erased = "erase jiffies size 8\n"
	m := dumpdirtest.NewMachine(3, 120, 16)
	plain := sealed(t, m, len(m.Chunks))
	if v := journalVersionOf(t, plain); v != 1 {
		t.Errorf("journal version %d of a dump that needs no more than 1", v)
	}
	m.Facts.ExcludedVmemmap = true
	m.Facts.Notes = vmcore.AppendERASEINFO(m.Facts.Notes, binary.LittleEndian, []byte(erased))

	fsys := dumpdirtest.NewFS()
	w := start(t, fsys, dir, m)
	putAll(t, w, m.Chunks)
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	b, _ := fsys.Bytes(path.Join(dir, dumpdir.IncompleteName))
	flip(t, fsys, dumpdir.IncompleteName, int64(len(b)-200), 0) // a chunk is lost in recovery
	w, err := dumpdir.Resume(fsys, dir, dumpdir.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = w.Close() })
	have := w.Progress().Chunks
	if have == 0 || have == uint64(len(m.Chunks)) {
		t.Fatalf("%d of %d chunks are there", have, len(m.Chunks))
	}
	if res, err := w.Seal(t.Context(), "test"); err != nil || res.State != dumpdir.StatePartial {
		t.Fatalf("%+v, %v", res, err)
	}
	wantClean(t, verify(t, fsys, dir))
	if v := journalVersionOf(t, fsys); v != 2 {
		t.Errorf("journal version %d", v)
	}
	if got := openDump(t, fsys, dir).Erased(); len(got) != 1 || got[0]+"\n" != erased {
		t.Errorf("erased: %q", got)
	}
	if got := openDump(t, plain, dir).Erased(); got != nil {
		t.Errorf("erased of a dump from which nothing was: %q", got)
	}
	b, _ = fsys.Bytes(path.Join(dir, dumpdir.VMCoreName))
	if status := binary.LittleEndian.Uint32(b[424:]); status&0x10 == 0 {
		t.Errorf("status %#x", status)
	}
	at, n := binary.LittleEndian.Uint64(b[4096+64:]), binary.LittleEndian.Uint64(b[4096+72:])
	if n != uint64(len(erased)) || string(b[at:at+n]) != erased {
		t.Errorf("eraseinfo: %d bytes at %#x", n, at)
	}
}
