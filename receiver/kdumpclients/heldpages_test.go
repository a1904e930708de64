package kdumpclients

import (
	"encoding/binary"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/corehaul/corehaul/dumpdir"
)

// TestFewPagesOfMany imports a raw ELF core that breaks off after the first pages of a PT_LOAD of 8 GiB. The 2 million pages that are
// missing are counted, and take neither disk space for their descriptors nor the time of reading each.
func TestFewPagesOfMany(t *testing.T) {
	_, b := sample(t, "makedumpfile-1.7.6-x86_64.elf")
	const load, bytesOf = 64 + 6*56, 8 << 30
	binary.LittleEndian.PutUint64(b[load+32:], bytesOf) // p_filesz
	binary.LittleEndian.PutUint64(b[load+40:], bytesOf) // p_memsz
	s := open(t, t.TempDir())
	put(t, treeOf(t, s, "n1"), "/vmcore", b, 1<<20).Abort(nil)
	settle(t, s)
	e := only(t, s)
	check(t, s, e)
	if m := e.Manifest; m.State != dumpdir.StatePartial || m.Pages.Missing < bytesOf/4096-16 || m.Pages.Present == 0 {
		t.Errorf("%s, %d of %d pages", m.State, m.Pages.Present, m.Pages.Planned)
	}
	var st syscall.Stat_t
	if err := syscall.Stat(filepath.Join(e.Path, dumpdir.VMCoreName), &st); err != nil {
		t.Fatal(err)
	}
	const most = 8 << 20 // the 1st bitmap, which has a bit for each page, is 256 KiB; the descriptors would be 48 MiB
	if got := st.Blocks * 512; got > most {
		t.Errorf("the vmcore takes %d bytes on the disk, want %d at most", got, most)
	}
}
