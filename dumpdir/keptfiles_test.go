package dumpdir_test

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"path"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/corehaul/corehaul/dumpdir"
	"github.com/corehaul/corehaul/dumpdir/dumpdirtest"
)

// reopened resumes the sealed dump at name.
func reopened(t *testing.T, fsys dumpdir.FS, name string) *dumpdir.Writer {
	t.Helper()
	w, err := dumpdir.Resume(fsys, name, dumpdir.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = w.Close() })
	return w
}

func keep(t *testing.T, w *dumpdir.Writer, name, text string) {
	t.Helper()
	if err := w.Keep(name, strings.NewReader(text)); err != nil {
		t.Fatal(err)
	}
}

// TestKeep keeps files before and behind the seal, and lets sha256sum look at them.
func TestKeep(t *testing.T) {
	m, dir := dumpdirtest.NewMachine(60, 12, 4), path.Join(t.TempDir(), "d")
	w := start(t, dumpdir.OS{}, dir, m)
	keep(t, w, "README.txt", "incomplete")
	putAll(t, w, m.Chunks)
	if _, err := w.Seal(t.Context(), ""); err != nil {
		t.Fatal(err)
	}
	keep(t, w, "kexec dmesg.log", "capture kernel")
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	w = reopened(t, dumpdir.OS{}, dir)
	keep(t, w, "README.txt", "saved successfully")
	wantClean(t, verify(t, dumpdir.OS{}, dir))
	checkSums(t, dir)
	kept, err := openDump(t, dumpdir.OS{}, dir).Kept()
	if err != nil || len(kept) != 2 || kept[0].Name != "README.txt" || kept[0].Size != 18 {
		t.Errorf("kept %+v, %v", kept, err)
	}
	for _, name := range []string{"", ".", "..", "a/b", ".x", "x.tmp", "a\nb", `a\b`, strings.Repeat("x", 201)} {
		if err := w.Keep(name, strings.NewReader("x")); !errors.Is(err, dumpdir.ErrBadKeptName) {
			t.Errorf("%q: %v", name, err)
		}
	}
	if err := w.Keep("broken", iotest.ErrReader(errors.New("boom"))); err == nil {
		t.Error("a reader that fails")
	}
	for i := len(kept); i < dumpdir.MaxKept; i++ {
		keep(t, w, strings.Repeat("n", i+1), "x")
	}
	if err := w.Keep("one more", strings.NewReader("x")); !errors.Is(err, dumpdir.ErrBadKeptName) {
		t.Errorf("got %v", err)
	}
	wantClean(t, verify(t, dumpdir.OS{}, dir))
}

// TestKeptDamage flips bits in what is kept.
func TestKeptDamage(t *testing.T) {
	fsys := sealed(t, dumpdirtest.NewMachine(61, 12, 4), 2)
	w := reopened(t, fsys, dir)
	keep(t, w, "opalcore", "firmware")
	name := dumpdir.KeptDirName + "/opalcore"
	for file, where := range map[string]string{name: "files", dumpdir.KeptListName: "files"} {
		flip(t, fsys, file, 3, 1)
		rep := verify(t, fsys, dir)
		flip(t, fsys, file, 3, 1)
		if rep.Damaged == 0 || rep.Findings[0].File != file || rep.Findings[0].Where != where {
			t.Errorf("%s: %+v", file, rep.Findings)
		}
	}
	if err := fsys.Remove(path.Join(dir, name)); err != nil {
		t.Fatal(err)
	}
	if rep := verify(t, fsys, dir); rep.Damaged != 1 || rep.Findings[0].Text != "missing" {
		t.Errorf("%+v", rep.Findings)
	}
}

// TestKeptSumsMended has a writer killed between files.json and SHA256SUMS.
func TestKeptSumsMended(t *testing.T) {
	fsys := sealed(t, dumpdirtest.NewMachine(62, 12, 4), 2)
	sums := path.Join(dir, dumpdir.SumsName)
	old, _ := fsys.Bytes(sums)
	w := reopened(t, fsys, dir)
	keep(t, w, "late", "text")
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if err := dumpdir.SaveFile(fsys, dir, dumpdir.SumsName, old); err != nil {
		t.Fatal(err)
	}
	if rep := verify(t, fsys, dir); rep.Damaged != 1 {
		t.Errorf("%+v", rep.Findings)
	}
	reopened(t, fsys, dir)
	wantClean(t, verify(t, fsys, dir))
	if now, _ := fsys.Bytes(sums); !bytes.HasPrefix(now, old) {
		t.Errorf("other lines changed:\n%s\n%s", old, now)
	}
}

// TestKeepPowerCut cuts the power at every step of a Keep on a sealed dump, then keeps the file again.
func TestKeepPowerCut(t *testing.T) {
	m, rnd := dumpdirtest.NewMachine(63, 12, 4), rand.New(rand.NewPCG(63, 1))
	for at := 1; ; at++ {
		fsys := sealed(t, m, 2)
		w := reopened(t, fsys, dir)
		fsys.SetFault(func(n int, _ dumpdirtest.Op, _ string) error {
			if n == at {
				return dumpdirtest.ErrPowerCut
			}
			return nil
		})
		if err := w.Keep("late", strings.NewReader("text")); err == nil {
			wantClean(t, verify(t, fsys.CloneCut(rnd), dir))
			break
		}
		fsys.Cut(rnd)
		w = reopened(t, fsys, dir)
		if _, left := fsys.Bytes(path.Join(dir, dumpdir.KeptDirName, "late.tmp")); left {
			t.Errorf("step %d: a temporary file is left", at)
		}
		wantClean(t, verify(t, fsys, dir))
		keep(t, w, "late", "text")
		wantClean(t, verify(t, fsys, dir))
		_ = w.Close()
	}
}

// TestSealPartial seals a dump partial that lacks nothing of its plan.
func TestSealPartial(t *testing.T) {
	m, fsys := dumpdirtest.NewMachine(64, 12, 4), dumpdirtest.NewFS()
	w := start(t, fsys, dir, m)
	putAll(t, w, m.Chunks)
	res, err := w.SealPartial(t.Context(), "the stream broke off")
	if err != nil || res.State != dumpdir.StatePartial || res.Reason != "the stream broke off" || res.Progress.Missing() != 0 {
		t.Fatalf("%+v, %v", res, err)
	}
	_ = w.Close()
	wantClean(t, verify(t, fsys, dir))
	if res, ok := reopened(t, fsys, dir).Result(); !ok || res.State != dumpdir.StatePartial {
		t.Errorf("resumed: %+v", res)
	}
}
