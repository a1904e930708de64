package dumpdir_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"math/rand/v2"
	"path"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/corehaul/corehaul/dumpdir"
	"github.com/corehaul/corehaul/dumpdir/dumpdirtest"
	"github.com/corehaul/corehaul/mem"
)

var pinned = time.Date(2026, 4, 1, 2, 3, 4, 0, time.UTC)

// sides are the side files of a dump at one time: what is saved, and what a reader has to find.
type sides struct {
	pin *dumpdir.Pin
	ver *dumpdir.Verification
}

func somePin(reason string) *dumpdir.Pin {
	return &dumpdir.Pin{Version: 1, Time: pinned, Reason: reason}
}

func someVerification(damaged uint64) *dumpdir.Verification {
	pfn, chunk := mem.PFN(77), uint64(3)
	v := &dumpdir.Verification{Version: 1, Time: pinned, Sealed: &pinned, SHA256: strings.Repeat("ab", 32), Damaged: damaged}
	if damaged > 0 {
		v.Findings = []dumpdir.Finding{{File: "vmcore", Offset: 4096, Length: 4096, Where: "page", PFN: &pfn, Chunk: &chunk, Text: strings.Repeat("long ", 90)}}
	}
	return v
}

// save brings the side files from one state to the next and returns the last one that was acknowledged.
func (from sides) save(fsys dumpdir.FS, to sides) (acked sides, err error) {
	acked = from
	if to.pin == nil {
		err = dumpdir.RemoveSideFile(fsys, dir, dumpdir.PinName)
	} else {
		err = dumpdir.SaveSideFile(fsys, dir, to.pin)
	}
	if err != nil {
		return acked, err
	}
	acked.pin = to.pin
	if err := dumpdir.SaveSideFile(fsys, dir, to.ver); err != nil {
		return acked, err
	}
	return to, nil
}

func readSides(fsys dumpdir.FS) (s sides, err error) {
	var perr error
	s.pin, perr = dumpdir.ReadSideFile[dumpdir.Pin](fsys, dir)
	s.ver, err = dumpdir.ReadSideFile[dumpdir.Verification](fsys, dir)
	return s, errors.Join(perr, err)
}

// sideSteps are what becomes of a dump's side files.
var sideSteps = []sides{{somePin("a"), someVerification(0)}, {somePin("b"), someVerification(2)}, {nil, someVerification(1)}}

// cutSides cuts the power at operation n of the steps and says whether something acknowledged is gone, or anything is torn.
// done tells that there was no operation n.
func cutSides(fsys *dumpdirtest.FS, n int, rnd *rand.Rand) (lost string, done bool) {
	fsys.SetFault(cutAt(n))
	var acked, next sides
	var err error
	for _, next = range sideSteps {
		if acked, err = acked.save(fsys, next); err != nil {
			break
		}
	}
	done = err == nil
	fsys.Cut(rnd)
	got, err := readSides(fsys)
	if err != nil {
		return err.Error(), done
	}
	if !cmp.Equal(got.pin, acked.pin) && !cmp.Equal(got.pin, next.pin) || !cmp.Equal(got.ver, acked.ver) && !cmp.Equal(got.ver, next.ver) {
		return cmp.Diff(acked.pin, got.pin) + cmp.Diff(acked.ver, got.ver), done
	}
	return "", done
}

// TestPowerCutSideFiles cuts the power at every operation of pinning, unpinning and recording.
func TestPowerCutSideFiles(t *testing.T) {
	base := dumpdirtest.NewFS()
	complete(t, base, dir, dumpdirtest.NewMachine(30, 20, 8))
	for n := 1; ; n++ {
		for seed := range uint64(20) {
			fsys := base.Clone()
			lost, done := cutSides(fsys, n, rand.New(rand.NewPCG(uint64(n), seed)))
			if lost != "" {
				t.Fatalf("power cut at operation %d, seed %d: %s", n, seed, lost)
			}
			if seed == 0 {
				wantClean(t, verify(t, fsys, dir))
			}
			if done && seed == 19 {
				t.Logf("there are %d operations", n-1)
				return
			}
		}
	}
}

// TestPowerCutSideFilesControl leaves out one sync: the test above must notice each.
func TestPowerCutSideFilesControl(t *testing.T) {
	base := dumpdirtest.NewFS()
	complete(t, base, dir, dumpdirtest.NewMachine(30, 20, 8))
	for _, tc := range []struct {
		op   dumpdirtest.Op
		name string
	}{
		{dumpdirtest.OpSync, dumpdir.PinName + ".tmp"},
		{dumpdirtest.OpSync, dumpdir.VerificationName + ".tmp"},
		{dumpdirtest.OpSyncDir, path.Base(dir)},
	} {
		seen := false
		for n := 1; n < 60 && !seen; n++ {
			for seed := uint64(0); seed < 20 && !seen; seed++ {
				fsys := base.Clone()
				fsys.IgnoreSync = func(o dumpdirtest.Op, f string) bool { return o == tc.op && f == tc.name }
				lost, _ := cutSides(fsys, n, rand.New(rand.NewPCG(uint64(n), seed)))
				seen = lost != ""
			}
		}
		if !seen {
			t.Errorf("nothing was lost without %s of %s: the test does not see it, or it is not needed", tc.op, tc.name)
		}
	}
}

// TestPinBesideAWriter has a writer of the dump begin, and remove temporary files, at every operation of a pin.
func TestPinBesideAWriter(t *testing.T) {
	base := dumpdirtest.NewFS()
	w := start(t, base, dir, dumpdirtest.NewMachine(31, 20, 8))
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	for n := 1; n < 8; n++ {
		fsys := base.Clone()
		resumes := 0
		fs := &hookFS{FS: fsys, before: func(op int) {
			if op != n {
				return
			}
			resumes++
			w, err := dumpdir.Resume(fsys, dir, dumpdir.Options{})
			if err != nil {
				t.Fatal(err)
			}
			if err := w.Close(); err != nil {
				t.Fatal(err)
			}
		}}
		if err := dumpdir.SaveSideFile(fs, dir, somePin("x")); err != nil {
			t.Fatalf("a writer began before operation %d: %v", n, err)
		}
		if got, err := dumpdir.ReadSideFile[dumpdir.Pin](fsys, dir); err != nil || !cmp.Equal(got, somePin("x")) {
			t.Errorf("a writer began before operation %d: %+v, %v", n, got, err)
		}
		if n <= 3 && resumes == 0 {
			t.Fatal("no writer began")
		}
	}
}

// hookFS calls before ahead of each operation on names.
type hookFS struct {
	dumpdir.FS
	n      int
	before func(op int)
}

func (s *hookFS) step() { s.n++; s.before(s.n) }

func (s *hookFS) Create(name string) (dumpdir.File, error) { s.step(); return s.FS.Create(name) }
func (s *hookFS) Rename(from, to string) error             { s.step(); return s.FS.Rename(from, to) }
func (s *hookFS) SyncDir(name string) error                { s.step(); return s.FS.SyncDir(name) }

func TestSideFilesOnAFullDisk(t *testing.T) {
	fsys := dumpdirtest.NewFS()
	complete(t, fsys, dir, dumpdirtest.NewMachine(32, 20, 8))
	fsys.SetRoom(fsys.Used() + 10)
	err := dumpdir.SaveSideFile(fsys, dir, somePin("a long reason"))
	if !errors.Is(err, syscall.ENOSPC) || !strings.Contains(err.Error(), dumpdir.PinName) {
		t.Errorf("got %v", err)
	}
	if _, ok := fsys.Bytes(path.Join(dir, dumpdir.PinName+".tmp")); ok {
		t.Error("a temporary file takes what little room there is")
	}
	if p, err := dumpdir.ReadSideFile[dumpdir.Pin](fsys, dir); p != nil || err != nil {
		t.Errorf("got %+v, %v", p, err)
	}
	if err := dumpdir.SaveSideFile(fsys, "/dumps/none", somePin("")); !errors.Is(err, dumpdir.ErrNotExist) {
		t.Errorf("pin of nothing: %v", err)
	}
}

// TestDiskThatDoesNotRead takes a medium error for damage, not for a verification that failed.
func TestDiskThatDoesNotRead(t *testing.T) {
	fsys := dumpdirtest.NewFS()
	complete(t, fsys, dir, dumpdirtest.NewMachine(33, 40, 8))
	d, err := dumpdir.Open(badFS{fsys}, dir)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = d.Close() }()
	rep, err := d.Verify(t.Context(), dumpdir.VerifyOptions{})
	if err != nil || rep.Damaged != 1 || rep.Findings[0].Where != "disk" || rep.Findings[0].File != dumpdir.VMCoreName || rep.Findings[0].Offset < 1000 {
		t.Errorf("got %+v, %v", rep, err)
	}
}

type badFS struct{ dumpdir.FS }

func (s badFS) Open(name string) (dumpdir.File, error) {
	f, err := s.FS.Open(name)
	if err == nil && path.Base(name) == dumpdir.VMCoreName {
		f = badFile{f}
	}
	return f, err
}

type badFile struct{ dumpdir.File }

func (f badFile) ReadAt(p []byte, off int64) (int, error) {
	if off > 5000 {
		return 0, syscall.EIO
	}
	return f.File.ReadAt(p, off)
}

// FuzzSideFiles reads anything as a side file: what is accepted is written again as it was.
func FuzzSideFiles(f *testing.F) {
	for _, v := range []any{somePin("because"), someVerification(0), someVerification(3), someReport(&dumpdir.Manifest{State: dumpdir.StatePartial, EndTime: &pinned}, 0)} {
		b, err := json.MarshalIndent(v, "", "  ")
		if err != nil {
			f.Fatal(err)
		}
		f.Add(append(b, '\n'))
	}
	f.Add([]byte(`{"version":2,"time":"2026-04-01T02:03:04Z"}`))
	f.Add([]byte(`{"version":1,"time":"2026-04-01T02:03:04Z","reason":"a\u001b[2J"}`))
	f.Add([]byte(`{"version":1,"time":"0000-04-01T02:03:04Z"}{}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		fsys := dumpdirtest.NewFS()
		if err := fsys.MkdirAll(dir); err != nil {
			t.Fatal(err)
		}
		for _, name := range []string{dumpdir.PinName, dumpdir.VerificationName, dumpdir.ReportName} {
			fsys.SetBytes(path.Join(dir, name), bytes.Clone(b))
		}
		if p, err := dumpdir.ReadSideFile[dumpdir.Pin](fsys, dir); err != nil {
			wantKnown(t, err)
		} else if strings.ContainsAny(p.Reason, "\x1b\n") || dumpdir.SaveSideFile(fsys, dir, p) != nil {
			t.Errorf("accepted %+v", p)
		} else if q, err := dumpdir.ReadSideFile[dumpdir.Pin](fsys, dir); err != nil || q.Reason != p.Reason {
			t.Errorf("%+v is read again as %+v, %v", p, q, err)
		}
		fuzzReport(t, fsys)
		v, err := dumpdir.ReadSideFile[dumpdir.Verification](fsys, dir)
		if err != nil {
			wantKnown(t, err)
			return
		}
		if err := dumpdir.SaveSideFile(fsys, dir, v); err != nil {
			return // longer than what is read, indented
		}
		if w, err := dumpdir.ReadSideFile[dumpdir.Verification](fsys, dir); err == nil && !cmp.Equal(v, w, cmpopts.EquateEmpty()) {
			t.Errorf("read again: %s", cmp.Diff(v, w))
		}
	})
}
