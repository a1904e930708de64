package triage_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/corehaul/corehaul/kernel/kerneltest"
	"github.com/corehaul/corehaul/kernel/oops"
	"github.com/corehaul/corehaul/kernel/signature"
	"github.com/corehaul/corehaul/mem"
	"github.com/corehaul/corehaul/triage"
	"github.com/corehaul/corehaul/vmcore"
	"github.com/corehaul/corehaul/vmcore/dumpfile"
)

const crashText = `[    0.000000] Linux version 6.1.0-test (x@y) #1 SMP
[    9.000000] BUG: kernel NULL pointer dereference, address: 0000000000000010
[    9.000001] #PF: supervisor read access in kernel mode
[    9.000002] Oops: 0000 [#1] PREEMPT SMP NOPTI
[    9.000003] CPU: 3 PID: 4711 Comm: worker Tainted: G           OE      6.1.0-test #1
[    9.000004] Hardware name: ACME Rack 9000, BIOS 1.0 01/01/2020
[    9.000005] RIP: 0010:queue_rq+0x12/0x40 [nvme]
[    9.000006] Call Trace:
[    9.000007]  <TASK>
[    9.000008]  blk_mq_dispatch+0x20/0x100
[    9.000009]  ? stale+0x1/0x2
[    9.000010]  </TASK>
[    9.000011] ---[ end trace 0000000000000000 ]---
[    9.000012] Kernel panic - not syncing: Fatal exception
`

// TestOfLog makes a report of a text alone.
func TestOfLog(t *testing.T) {
	r, err := triage.OfLog(strings.NewReader(crashText))
	if err != nil {
		t.Fatal(err)
	}
	if r.Kind != oops.NullDereference || r.Title != "BUG: unable to handle kernel NULL pointer dereference in queue_rq" || !slices.Equal(r.Sources, []string{"log"}) {
		t.Errorf("%+v", r)
	}
	if c := r.Crash; *c.CPU != 3 || *c.PID != 4711 || c.Comm != "worker" || c.Function != "queue_rq" || c.Offset != 0x12 || c.Module != "nvme" {
		t.Errorf("%+v", c)
	}
	if s := r.System; s.Release != "6.1.0-test" || !strings.HasPrefix(s.Hardware, "ACME") || len(s.Taint.Flags) != 2 {
		t.Errorf("%+v", s)
	}
	if _, err := triage.OfLog(strings.NewReader("[    0.0] all is well\n")); !errors.Is(err, oops.ErrNoCrash) {
		t.Errorf("a log without a crash: %v", err)
	}
}

// openMachine writes a generated machine as an ELF core and opens it.
func openMachine(t *testing.T, m *kerneltest.Machine) vmcore.Image {
	t.Helper()
	var b bytes.Buffer
	if err := m.WriteCore(&b); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "vmcore")
	if err := os.WriteFile(path, b.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	img, err := dumpfile.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = img.Close() })
	return img
}

// TestPoorKernel makes a report of memory without a symbol table: it has what the log and the notes say, and names what is missing.
func TestPoorKernel(t *testing.T) {
	m := triage.Open(openMachine(t, kerneltest.NewX86(4)))
	r := triage.OfDump(m, strings.NewReader(crashText))
	if r.Kind != oops.NullDereference || !slices.Equal(r.Sources, []string{"log", "memory"}) || r.System.Release != "6.1.0-test" {
		t.Errorf("%+v", r)
	}
	if len(r.Unread) == 0 || !strings.HasPrefix(r.Unread[0], "the symbol table: ") {
		t.Errorf("unread: %q", r.Unread)
	}
	if m.Tasks() != nil || m.CPUs() != nil {
		t.Error("tasks or stacks of a kernel without symbols")
	}
	for _, w := range []triage.Which{{CPU: -1}, {CPU: 2}, {CPU: -1, CPUs: true}, {CPU: -1, Task: "1"}} {
		if list, err := m.Backtraces(w); list != nil || err != nil {
			t.Errorf("%+v: %v, %v", w, list, err)
		}
	}
	b, err := json.Marshal(r)
	if err != nil || !bytes.Contains(b, []byte(`"report_version":2`)) {
		t.Errorf("%s, %v", b, err)
	}
}

// TestNoLog makes a report of memory whose log cannot be read, and of one whose log shows no crash.
func TestNoLog(t *testing.T) {
	img := openMachine(t, kerneltest.NewX86(4))
	if r := triage.OfDump(triage.Open(img), nil); r.Kind != oops.Unknown || r.Title != "" || slices.Contains(r.Sources, "log") {
		t.Errorf("%+v", r)
	}
	r := triage.OfDump(triage.Open(img), strings.NewReader("[    0.0] all is well\n"))
	if r.Kind != oops.Unknown || r.Title != "" || r.Log != nil || !slices.Contains(r.Unread, oops.ErrNoCrash.Error()) {
		t.Errorf("%+v", r)
	}
}

// buggyImage is a dump whose reader has a bug.
type buggyImage struct{ vmcore.Image }

func (buggyImage) ReadPhys([]byte, mem.PhysAddr) error { panic("a bug") }

// TestBugIsUnread: a bug in what reads memory ends no program; the report says so.
func TestBugIsUnread(t *testing.T) {
	r := triage.OfDump(triage.Open(buggyImage{openMachine(t, kerneltest.NewX86(4))}), strings.NewReader(crashText))
	if r.Title == "" || len(r.Unread) == 0 || !strings.Contains(r.Unread[0], "internal error: a bug") {
		t.Errorf("%+v", r)
	}
}

// TestDamagedLog makes a report of a log in memory that breaks off after the crash: what can be read counts, and the rest is named.
func TestDamagedLog(t *testing.T) {
	l := kerneltest.NewLog(8 << 10)
	at := uint32(0)
	for i, line := range strings.Split(strings.TrimSpace(crashText), "\n") {
		_, text, _ := strings.Cut(line, "] ")
		at = l.Next
		l.Add(uint64(9e9+i), text, "")
	}
	l.Add(10e9, "what is behind the damage", "")
	l.Buf[at+10], l.Buf[at+11] = 0xff, 0xff // the text of the last line of the crash is longer than its record
	x := kerneltest.NewX86(4)
	x.InstallLog(l, "printk_log")
	r := triage.OfDump(triage.Open(openMachine(t, x)), nil)
	if r.Kind != oops.NullDereference || r.Crash.Function != "queue_rq" || !slices.Contains(r.Sources, "log") {
		t.Errorf("%+v", r)
	}
	damaged := func(line string) bool { return strings.HasPrefix(line, "the log: ") }
	if !slices.ContainsFunc(r.Unread, damaged) {
		t.Errorf("unread: %q", r.Unread)
	}
	quiet := strings.NewReader("[    0.0] all is well\n")
	if r := triage.OfDump(triage.Open(openMachine(t, x)), quiet); r.Kind != oops.NullDereference {
		t.Errorf("with a stored log that ends before the crash: %+v", r)
	}
}

// TestNoTypes makes a report of a kernel without BTF: it has a symbol table, and no lists.
func TestNoTypes(t *testing.T) {
	x := kerneltest.NewX86(4)
	text := x.Image(0)
	symbols := []kerneltest.KernelSymbol{{Name: "_stext", Addr: text, Type: 'T'}, {Name: "_text", Addr: text, Type: 'T'}, {Name: "_end", Addr: text + 0x300000, Type: 'B'}}
	for i := range mem.VirtAddr(700) {
		symbols = append(symbols, kerneltest.KernelSymbol{Name: fmt.Sprintf("function_%d", i), Addr: text + 0x3000 + 16*i, Type: 't'})
	}
	x.SetKallsyms(x.Image(0x80000), kerneltest.KallsymsForms()["6.1"], symbols)
	m := triage.Open(openMachine(t, x))
	r := triage.OfDump(m, strings.NewReader(crashText))
	if r.Kind != oops.NullDereference || r.Crash.Comm != "worker" || r.Crash.Task != "" || r.Crashed() != nil {
		t.Errorf("%+v", r)
	}
	if m.Tasks() != nil || m.Modules() != nil || r.System.Tasks != 0 || r.System.CPUs != 0 {
		t.Errorf("lists without types, or CPUs without notes: %+v", r.System)
	}
	if len(r.Unread) == 0 || !strings.HasPrefix(r.Unread[0], "the types: ") {
		t.Errorf("unread: %q", r.Unread)
	}
}

// TestWrongPageTables makes a report of memory whose page tables may be wrong: it says so.
func TestWrongPageTables(t *testing.T) {
	x := kerneltest.NewX86(4)
	at := x.EntryAddr(x.Image(0), x.Levels()-1)
	x.Write(at, kerneltest.Uint64(uint64(at&^4095)|3|x.EntryBits)) // the top table is its own next one
	r := triage.OfDump(triage.Open(openMachine(t, x)), strings.NewReader(crashText))
	may := func(line string) bool { return strings.HasSuffix(line, "translations may be wrong") }
	if r.Title == "" || !slices.Contains(r.Sources, "memory") || !slices.ContainsFunc(r.Unread, may) {
		t.Errorf("%+v", r)
	}
}

// TestVersions holds that another algorithm of signatures makes stored reports again, which another version of reports does.
func TestVersions(t *testing.T) {
	if triage.Version != 2 || signature.Version != 1 {
		t.Errorf("reports have version %d and signatures %d: whoever raises the second has to raise the first, and both here", triage.Version, signature.Version)
	}
}
