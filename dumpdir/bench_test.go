package dumpdir_test

import (
	"path/filepath"
	"testing"

	"github.com/corehaul/corehaul/dumpdir"
	"github.com/corehaul/corehaul/dumpdir/dumpdirtest"
)

// benchMachine has 64 MiB of pages in chunks of 1 MiB.
func benchMachine() *dumpdirtest.Machine { return dumpdirtest.NewMachine(50, 16384, 256) }

// BenchmarkPutChunk measures storing chunks, with a commit for every eight, as a receiver does.
func BenchmarkPutChunk(b *testing.B) {
	m := benchMachine()
	dir := b.TempDir()
	b.SetBytes(int64(len(m.Chunks)) << 20)
	for i := 0; b.Loop(); i++ {
		w := beginBench(b, filepath.Join(dir, string(rune('a'+i%26))+"x"), m, i)
		for j := range m.Chunks {
			if err := w.PutChunk(&m.Chunks[j]); err != nil {
				b.Fatal(err)
			}
			if j%8 != 7 {
				continue
			}
			if _, err := w.Commit(); err != nil {
				b.Fatal(err)
			}
		}
		if err := w.Close(); err != nil {
			b.Fatal(err)
		}
	}
}

func beginBench(b *testing.B, base string, m *dumpdirtest.Machine, i int) *dumpdir.Writer {
	b.Helper()
	w, err := dumpdir.Create(dumpdir.OS{}, filepath.Join(base, string(rune('0'+i/26))), m.Meta, dumpdir.Options{})
	if err != nil {
		b.Fatal(err)
	}
	if err := m.SetPlan(w); err != nil {
		b.Fatal(err)
	}
	return w
}

// BenchmarkCommit measures one commit of one small chunk: two syncs.
func BenchmarkCommit(b *testing.B) {
	m := dumpdirtest.NewMachine(51, 20000, 1)
	w := beginBench(b, b.TempDir(), m, 0)
	i := 0
	for b.Loop() {
		if i == len(m.Chunks) {
			b.Fatal("machine too small")
		}
		if err := w.PutChunk(&m.Chunks[i]); err != nil {
			b.Fatal(err)
		}
		if _, err := w.Commit(); err != nil {
			b.Fatal(err)
		}
		i++
	}
	if err := w.Close(); err != nil {
		b.Fatal(err)
	}
}

// sealBench makes a complete dump in dir.
func sealBench(b *testing.B, dir string, m *dumpdirtest.Machine) {
	b.Helper()
	w := beginBench(b, dir, m, 0)
	for j := range m.Chunks {
		if err := w.PutChunk(&m.Chunks[j]); err != nil {
			b.Fatal(err)
		}
	}
	if _, err := w.Seal(b.Context(), ""); err != nil {
		b.Fatal(err)
	}
	if err := w.Close(); err != nil {
		b.Fatal(err)
	}
}

// BenchmarkVerify measures reading a dump back, in bytes of raw pages.
func BenchmarkVerify(b *testing.B) {
	m := benchMachine()
	dir := b.TempDir()
	sealBench(b, dir, m)
	b.SetBytes(int64(len(m.Chunks)) << 20)
	for b.Loop() {
		d, err := dumpdir.Open(dumpdir.OS{}, filepath.Join(dir, "0"))
		if err != nil {
			b.Fatal(err)
		}
		rep, err := d.Verify(b.Context(), dumpdir.VerifyOptions{})
		if err != nil || !rep.OK() {
			b.Fatalf("%+v, %v", rep, err)
		}
		if err := d.Close(); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkResume measures taking up a dump that is all there.
func BenchmarkResume(b *testing.B) {
	m := benchMachine()
	dir := b.TempDir()
	w := beginBench(b, dir, m, 0)
	for j := range m.Chunks {
		if err := w.PutChunk(&m.Chunks[j]); err != nil {
			b.Fatal(err)
		}
	}
	if _, err := w.Commit(); err != nil {
		b.Fatal(err)
	}
	if err := w.Close(); err != nil {
		b.Fatal(err)
	}
	b.SetBytes(int64(len(m.Chunks)) << 20)
	for b.Loop() {
		w, err := dumpdir.Resume(dumpdir.OS{}, filepath.Join(dir, "0"), dumpdir.Options{})
		if err != nil {
			b.Fatal(err)
		}
		if err := w.Close(); err != nil {
			b.Fatal(err)
		}
	}
}
