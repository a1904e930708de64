package kdumpclients

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/corehaul/corehaul/dumpcopy"
	"github.com/corehaul/corehaul/dumpdir"
	"github.com/corehaul/corehaul/mem"
	"github.com/corehaul/corehaul/vmcore/vmcoretest"
)

// TestStreamOfLackingFile sends files that do not hold all that they should. The client means that all is well; the dump is
// partial, with the pages that are there.
func TestStreamOfLackingFile(t *testing.T) {
	for _, tc := range vmcoretest.LackingFiles(t) {
		for _, wrap := range []string{"as it is", "gzip"} {
			t.Run(tc.Name+", "+wrap, func(t *testing.T) {
				s := open(t, t.TempDir())
				_ = put(t, treeOf(t, s, "n1"), "/vmcore", pack(t, tc.Bytes, wraps[wrap]), 3000).Close() // it may say that the end is missing
				settle(t, s)
				m := only(t, s).Manifest
				if missing := m.Pages.Planned - m.Pages.Present; m.State != dumpdir.StatePartial && m.Pages.Present > 0 || m.State == dumpdir.StateComplete || m.Pages.Present > 0 && missing != tc.Missing {
					t.Errorf("%s: %d of %d pages, want %d missing: %s", m.State, m.Pages.Present, m.Pages.Planned, tc.Missing, m.Reason)
				}
				if m.Pages.Present > 0 && !strings.Contains(m.Reason, tc.Reason) {
					t.Errorf("%q does not say %q", m.Reason, tc.Reason)
				}
			})
		}
	}
}

// TestStreamWithoutARecord drops each record of makedumpfile's streams once. With its end marker, each looks whole.
func TestStreamWithoutARecord(t *testing.T) {
	for _, name := range []string{"makedumpfile-1.7.6-x86_64-lzo.flat", "makedumpfile-1.7.6-x86_64-elf.flat"} {
		want, flat := sample(t, name)
		pages, n := count(t, want), len(vmcoretest.Records(flat))
		for i := range n {
			s := open(t, t.TempDir())
			_ = put(t, treeOf(t, s, "n1"), "/vmcore", vmcoretest.WithoutRecord(flat, i), 1<<20).Close() // without its marker it is broken off
			settle(t, s)
			e := only(t, s)
			got := 0
			if img := check(t, s, e); img != nil {
				got = samePages(t, img, want)
			}
			if m := e.Manifest; m.State == dumpdir.StateComplete || m.State == dumpdir.StatePartial && (m.Reason == "" || got == 0) {
				t.Errorf("%s without record %d of %d: %s with %d of %d pages: %s", name, i, n, m.State, got, pages, m.Reason)
			}
		}
	}
}

// TestRawELFCut breaks off a raw ELF core: what is missing is counted from its program headers.
func TestRawELFCut(t *testing.T) {
	want, b := sample(t, "vmcore-6.1-x86_64-tiny.elf")
	pages := count(t, want)
	for _, wrap := range []string{"as it is", "gzip", "xz"} {
		for _, cut := range []int{len(b) - 1, len(b) - 3*4096, len(b) / 2} {
			t.Run(fmt.Sprint(wrap, ", ", cut), func(t *testing.T) {
				s := open(t, t.TempDir())
				put(t, treeOf(t, s, "n1"), "/vmcore", pack(t, b[:cut], wraps[wrap]), 1000).Abort(nil)
				settle(t, s)
				e := only(t, s)
				got := samePages(t, check(t, s, e), want)
				if m := e.Manifest; m.State != dumpdir.StatePartial || int(m.Pages.Planned) != pages || got >= pages || int(m.Pages.Present) != got {
					t.Errorf("%s: %d of %d pages, %d in all: %s", m.State, m.Pages.Present, m.Pages.Planned, pages, m.Reason)
				}
			})
		}
	}
}

// TestContradictoryELF sends a core whose PT_LOADs give the same memory different bytes: the dump is partial, and the file of
// the client is kept beside it.
func TestContradictoryELF(t *testing.T) {
	one, two := bytes.Repeat([]byte{1}, 4*4096), bytes.Repeat([]byte{2}, 4*4096)
	b := (&vmcoretest.Core{Loads: []vmcoretest.Load{{Paddr: 0x1000, Data: one}, {Paddr: 0x3000, Data: two}}}).Bytes()
	for _, wrap := range []string{"as it is", "gzip"} {
		t.Run(wrap, func(t *testing.T) {
			s := open(t, t.TempDir())
			if err := put(t, treeOf(t, s, "n1"), "/vmcore", pack(t, b, wraps[wrap]), 1000).Close(); err != nil {
				t.Fatal(err)
			}
			settle(t, s)
			e := only(t, s)
			check(t, s, e)
			if m := e.Manifest; m.State != dumpdir.StatePartial || !strings.Contains(m.Reason, "contradict") || !strings.Contains(m.Reason, "files/vmcore") || m.Pages.Present != 6 {
				t.Errorf("%s, %d pages: %s", m.State, m.Pages.Present, m.Reason)
			}
			kept, err := os.ReadFile(filepath.Join(e.Path, dumpdir.KeptDirName, "vmcore"))
			if err != nil || !bytes.Equal(kept, b) {
				t.Errorf("kept %d bytes, %v", len(kept), err)
			}
		})
	}
}

// TestOtherPlanBegun finds a copy that was begun with another plan, as an older version of this program may have left it. The
// dump is sealed as it is, and the client's file is kept: neither is lost, and the work ends.
func TestOtherPlanBegun(t *testing.T) {
	_, b := sample(t, "vmcore-6.1-x86_64-tiny.elf")
	s := open(t, t.TempDir())
	if err := put(t, treeOf(t, s, "n1"), "/vmcore", b, 1000).Close(); err != nil {
		t.Fatal(err)
	}
	due := s.due()
	if len(due) != 1 {
		t.Fatalf("%d directories have work", len(due))
	}
	j := due[0]
	err := errors.Join(j.begin(), j.with(t.Context(), func(w *dumpdir.Writer) error {
		file, of, err := j.h.openImage(j.dir.Dump.Image)
		if err != nil {
			return err
		}
		src, err := dumpcopy.Open(t.Context(), of, s.cfg.Codec)
		if err != nil {
			return err
		}
		plan, err := w.StartPlan(src.Facts(s.cfg.Codec))
		if err != nil {
			return err
		}
		return errors.Join(plan.Add(mem.Extent{Start: 1, Count: 1}), plan.Finish(dumpdir.PlanEnd{Pages: 1, Chunks: 1, Hash: dumpdir.PlanHash{7}}), file.Close())
	}))
	if err != nil {
		t.Fatal(err)
	}
	s.jobs.release(j.dir, false)
	settle(t, s)
	e := only(t, s)
	if m := e.Manifest; m.State != dumpdir.StatePartial || !strings.Contains(m.Reason, "files/vmcore") {
		t.Errorf("%s: %s", m.State, m.Reason)
	}
	if kept, err := os.ReadFile(filepath.Join(e.Path, dumpdir.KeptDirName, "vmcore")); err != nil || !bytes.Equal(kept, b) {
		t.Errorf("kept %d bytes, %v", len(kept), err)
	}
}

// TestLengthFirst sets the length of a file before its bytes come, as SFTP allows. What is missing of them counts as missing.
func TestLengthFirst(t *testing.T) {
	want, b := sample(t, "vmcore-6.1-x86_64-tiny.elf")
	for name, row := range map[string]struct {
		sent  int
		end   func(Upload) error
		state dumpdir.State
	}{
		"all of it":              {len(b), Upload.Close, dumpdir.StateComplete},
		"half, and an end":       {len(b) / 2, Upload.Close, dumpdir.StatePartial},
		"half, then it broke":    {len(b) / 2, func(u Upload) error { u.Abort(nil); return nil }, dumpdir.StatePartial},
		"nothing, then it broke": {0, func(u Upload) error { u.Abort(nil); return nil }, dumpdir.StateLogOnly},
	} {
		for _, late := range []bool{false, true} { // late: behind the first bytes
			s := open(t, t.TempDir())
			tr := treeOf(t, s, "n1")
			send(t, tr, "/dmesg", logText)
			u, err := tr.Create("/vmcore")
			if err != nil {
				t.Fatal(err)
			}
			first := 0
			if late {
				first = min(8<<10, row.sent)
			}
			_, err = u.WriteAt(b[:first], 0)
			if err := errors.Join(err, u.Truncate(int64(len(b)))); err != nil {
				t.Fatal(err)
			}
			_, err = u.WriteAt(b[first:row.sent], int64(first))
			if err := errors.Join(err, row.end(u)); err != nil {
				t.Errorf("%s: %v", name, err)
			}
			settle(t, s)
			e := only(t, s)
			if e.Manifest.State != row.state {
				t.Errorf("%s, late %v: %s (%s)", name, late, e.Manifest.State, e.Manifest.Reason)
			}
			if row.state == dumpdir.StateLogOnly {
				continue
			}
			if n := samePages(t, check(t, s, e), want); n == 0 || uint64(n) != e.Manifest.Pages.Present {
				t.Errorf("%s, late %v: %d pages of %d", name, late, n, e.Manifest.Pages.Present)
			}
		}
	}
}

// TestLogLengthFirst sets the length of a log and breaks off: the log ends with its last byte.
func TestLogLengthFirst(t *testing.T) {
	s := open(t, t.TempDir())
	u, err := treeOf(t, s, "n1").Create("/dmesg")
	if err != nil {
		t.Fatal(err)
	}
	if err := u.Truncate(int64(2 * len(logText))); err != nil {
		t.Fatal(err)
	}
	if _, err := u.WriteAt([]byte(logText), 0); err != nil {
		t.Fatal(err)
	}
	u.Abort(nil)
	settle(t, s)
	if log := storedLog(t, only(t, s)); string(log) != logText {
		t.Errorf("the log is %q", log)
	}
}
