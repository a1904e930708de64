package stock

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/corehaul/corehaul/dumpdir"
	"github.com/corehaul/corehaul/kernel/kerneltest"
	"github.com/corehaul/corehaul/storage"
)

const (
	longFault = "BUG: unable to handle page fault for address: ffffc90000000000"
	longPanic = "Kernel panic - not syncing: Fatal exception"
	longFirst = "Linux version 6.1.0"
)

// storedLog returns the log of a dump.
func storedLog(t *testing.T, e storage.Entry) []byte {
	t.Helper()
	log, err := os.ReadFile(filepath.Join(e.Path, dumpdir.LogName))
	if err != nil {
		t.Fatal(err)
	}
	return log
}

// wantLongLog checks that a log has its start, the fault and its end, and that the dump is known by the fault.
func wantLongLog(t *testing.T, e storage.Entry, marks int) {
	t.Helper()
	log := storedLog(t, e)
	if n := bytes.Count(log, []byte("--- corehaul left out ")); n != marks {
		t.Errorf("%d marks, want %d", n, marks)
	}
	for _, line := range []string{longFirst, longPanic} {
		if !bytes.Contains(log, []byte("] "+line+"\n")) {
			t.Errorf("%q is left out", line)
		}
	}
	if !bytes.HasSuffix(log, []byte("] "+longPanic+"\n")) {
		t.Errorf("the log ends with %q", log[max(0, len(log)-100):])
	}
	if e.Manifest.PanicLine != longFault {
		t.Errorf("panic line %q", e.Manifest.PanicLine)
	}
}

// TestLongLogInMemory imports a dump whose log is longer than a receiver takes, and which comes without another log.
func TestLongLogInMemory(t *testing.T) {
	m := kerneltest.NewX86(4)
	m.Strings["PAGESIZE"], m.Strings["OSRELEASE"] = "4096", "6.1.0-long"
	m.InstallRing(kerneltest.LongLog(map[int]string{
		0: longFirst, kerneltest.LongLogRecords / 5: longFault, kerneltest.LongLogRecords - 1: longPanic,
	}).RingImage)
	var core bytes.Buffer
	if err := m.WriteCore(&core); err != nil {
		t.Fatal(err)
	}
	s := open(t, t.TempDir())
	tr := treeOf(t, s, "long")
	if err := put(t, tr, "/vmcore", core.Bytes(), 1<<20).Close(); err != nil {
		t.Fatal(err)
	}
	drain(t, s)
	e := only(t, s)
	wantLongLog(t, e, 2)
	if n := len(storedLog(t, e)); n > maxLog || n < maxLog*9/10 || !strings.Contains(string(storedLog(t, e)), "] "+longFault) {
		t.Errorf("%d bytes of log, or none of the fault", n)
	}
}
