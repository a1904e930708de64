package kdumpclients

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/corehaul/corehaul/dumpdir"
	"github.com/corehaul/corehaul/kernel/kerneltest"
	"github.com/corehaul/corehaul/protocol"
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
	}))
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
	if n := len(storedLog(t, e)); n > protocol.MaxLogBytes || n < protocol.MaxLogBytes*9/10 || !strings.Contains(string(storedLog(t, e)), "] "+longFault) {
		t.Errorf("%d bytes of log, or none of the fault", n)
	}
}

// lines returns n numbered lines of a log.
func lines(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, "[    4.000000] line %d\n", i)
	}
	return b.String()
}

// TestLongLogOfClient has clients send a log that is longer than a small file may be: in order, in pieces that come early, and up to a byte
// where the file just goes round.
func TestLongLogOfClient(t *testing.T) {
	const small = 1 << 20
	middle := "[    0.000000] " + longFirst + "\n" + lines(6000) + "[    5.000000] " + longFault + "\n" + lines(90000)
	for name, tc := range map[string]struct {
		log   string
		swap  bool // every two pieces
		marks int
	}{
		"whole":           {log: middle[:small-100]},
		"long":            {log: middle, marks: 1},
		"very long":       {log: middle + lines(200000), marks: 1},
		"a byte too long": {log: middle[:small-100] + strings.Repeat(".", 100-len(longPanic)-16) + "\n", marks: 1},
		"out of order":    {log: middle, swap: true, marks: 1},
	} {
		t.Run(name, func(t *testing.T) {
			log := tc.log + "\n[    6.000000] " + longPanic + "\n"
			s := openSmall(t, t.TempDir(), small)
			u, err := treeOf(t, s, "long").Create("/vmcore-dmesg-incomplete.txt")
			if err != nil {
				t.Fatal(err)
			}
			const piece = 4000
			for at := 0; at < len(log); at += piece {
				from := at
				if pair := at / piece; tc.swap && len(log)-at > 2*piece {
					from = (pair ^ 1) * piece
				}
				if _, err := u.WriteAt([]byte(log[from:min(from+piece, len(log))]), int64(from)); err != nil {
					t.Fatal(err)
				}
			}
			if err := u.Close(); err != nil {
				t.Fatal(err)
			}
			drain(t, s)
			got := string(storedLog(t, only(t, s)))
			first, last, cut := strings.Cut(got, "\n--- corehaul left out ")
			if !strings.HasPrefix(log, first) || cut != (tc.marks > 0) {
				t.Fatalf("begins with %q, mark %v", got[:100], cut)
			}
			if cut {
				left, tail, _ := strings.Cut(last, "\n")
				if want := len(log) - len(first) - len(tail); !strings.HasSuffix(log, tail) || !strings.HasPrefix(left, fmt.Sprint(want, " bytes")) || len(first)+len(tail) != small {
					t.Errorf("%d bytes, %q, %d bytes", len(first), left, len(tail))
				}
			}
			if line := only(t, s).Manifest.PanicLine; line != longFault && !tc.swap {
				t.Errorf("panic line %q", line)
			}
		})
	}
}

// TestLongLogOfKilledReceiver keeps the part of a log whose order is known.
func TestLongLogOfKilledReceiver(t *testing.T) {
	const small = 1 << 20
	dir, log := t.TempDir(), lines(100000)
	s := openSmall(t, dir, small)
	put(t, treeOf(t, s, "long"), "/vmcore-dmesg.txt", []byte(log), 4000)
	s = openSmall(t, dir, small)
	settle(t, s)
	if got := string(storedLog(t, only(t, s))); !strings.HasPrefix(log, got) || len(got) < small/8 {
		t.Errorf("%d bytes that are not the start of the log", len(got))
	}
}
