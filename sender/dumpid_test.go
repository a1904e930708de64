package sender

import (
	"encoding/binary"
	"os"
	"path/filepath"
	"testing"

	"github.com/corehaul/corehaul/internal/race"
	"github.com/corehaul/corehaul/protocol"
	"github.com/corehaul/corehaul/vmcore/vmcoretest"
)

// Files without registers and time of the crash are told apart by what they hold: the second dump of a machine would be
// reported as complete already, and never be stored.
func TestDumpsWithoutNotesHaveIDsOfTheirOwn(t *testing.T) {
	if race.Enabled {
		t.Skip("one goroutine: the race detector has nothing to find")
	}
	file := func(change func(*vmcoretest.Kdump)) *Source {
		k := &vmcoretest.Kdump{
			Order: binary.LittleEndian, PageSize: 4096, Utsname: [6]string{"Linux", "node", "6.1", "#1", "x86_64", "(none)"},
			NrCPUs: 1, Pages: vmcoretest.Pages(1, 2*sampledPages, 4096),
		}
		change(k)
		path := filepath.Join(t.TempDir(), "vmcore")
		if err := os.WriteFile(path, k.Bytes(), 0o600); err != nil {
			t.Fatal(err)
		}
		src, err := Open(path)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = src.Close() }) // only read
		return src
	}
	machine := []byte("machine")
	first := file(func(*vmcoretest.Kdump) {}).dumpID(machine)
	if again := file(func(*vmcoretest.Kdump) {}).dumpID(machine); again != first {
		t.Errorf("the same file has the ids %s and %s", first, again)
	}
	for name, change := range map[string]func(*vmcoretest.Kdump){
		"other pages":   func(k *vmcoretest.Kdump) { k.Pages = vmcoretest.Pages(2, 2*sampledPages, 4096) },
		"a page less":   func(k *vmcoretest.Kdump) { k.Pages = vmcoretest.Pages(1, 2*sampledPages-1, 4096) },
		"other kernel":  func(k *vmcoretest.Kdump) { k.Utsname[2] = "6.2" },
		"a later crash": func(k *vmcoretest.Kdump) { k.Sec = 1 },
	} {
		if id := file(change).dumpID(machine); id == first {
			t.Errorf("%s: the id is the same", name)
		}
	}
	timed := file(func(k *vmcoretest.Kdump) { k.Text = "OSRELEASE=6.1\nCRASHTIME=1700000000\n" })
	if want := protocol.DumpID(timed.info.VMCOREINFO.Raw(), timed.info.Notes, machine); timed.dumpID(machine) != want {
		t.Error("the id of a dump with CRASHTIME depends on more than VMCOREINFO and notes")
	}
}
