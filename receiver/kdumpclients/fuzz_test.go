package kdumpclients

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"testing"

	"github.com/corehaul/corehaul/storage"
	"github.com/corehaul/corehaul/vmcore/flattened"
	"github.com/corehaul/corehaul/vmcore/vmcoretest"
)

// memFile is an io.WriterAt in memory that gives up beyond a size.
type memFile struct{ b []byte }

const maxMemFile = 1 << 20

func (m *memFile) WriteAt(p []byte, off int64) (int, error) {
	end := int(off) + len(p)
	if end > maxMemFile {
		return 0, os.ErrInvalid
	}
	if end > len(m.b) {
		m.b = append(m.b, make([]byte, end-len(m.b))...)
	}
	return copy(m.b[off:], p), nil
}

// fuzzUpload sends b in pieces in an order that seed gives, and returns what lies on the disk then.
func fuzzUpload(t *testing.T, s *Service, b []byte, seed uint64) (kind string, staged []byte, state *fileState) {
	t.Helper()
	tr := treeOf(t, s, "n1")
	u, err := tr.Create("/vmcore")
	if err != nil {
		t.Fatal(err)
	}
	size := 16 + int(seed%997) // fewer pieces than may be out of order
	pieces := (len(b) + size - 1) / size
	order := make([]int, pieces)
	for i := range order {
		order[i] = i
	}
	if seed%3 == 0 {
		order = rand.New(rand.NewPCG(seed, 3)).Perm(pieces)
	}
	for _, i := range order {
		if _, err := u.WriteAt(b[i*size:min((i+1)*size, len(b))], int64(i*size)); err != nil {
			break
		}
	}
	_ = u.Close() // it may be anything
	h := s.hosts["n1"]
	f := h.state.file("/vmcore")
	if kind = "file"; f.Image != nil && !f.Image.InPlace {
		kind = "image"
	}
	file, err := os.Open(h.path(f.Num, kind))
	if err != nil {
		t.Fatal(err)
	}
	staged, err = io.ReadAll(io.LimitReader(file, maxMemFile+1)) // it may have a hole of terabytes
	if err := errors.Join(err, file.Close()); err != nil {
		t.Fatal(err)
	}
	return kind, staged, f
}

// FuzzUpload sends anything in any order and compares what is staged with the bytes, or with what is inside of them.
func FuzzUpload(f *testing.F) {
	for _, name := range vmcoretest.Samples(f, ".flat") {
		b := vmcoretest.Sample(f, name)
		f.Add(b, uint64(3*500))
		f.Add(b[:len(b)-30], uint64(1))
	}
	f.Add([]byte("BZh9"), uint64(1))
	f.Add([]byte("\x7fELF\x02\x01\x01"), uint64(3))
	f.Add([]byte("\x1f\x8b\x08\x00"), uint64(2))
	f.Fuzz(func(t *testing.T, b []byte, seed uint64) {
		if len(b) > maxMemFile/4 {
			return
		}
		s := open(t, t.TempDir())
		kind, staged, state := fuzzUpload(t, s, b, seed)
		if kind == "file" {
			if state.Status == fileBroken && sniff(b) != formPlain {
				return // the first error ended it
			}
			if !bytes.Equal(staged, b) {
				t.Fatalf("%d bytes are not the %d that were sent: %+v", len(staged), len(b), state)
			}
			return
		}
		if sniff(b) != formFlat || len(staged) > maxMemFile {
			return // what a compressor hides is for other tests
		}
		var want memFile
		asm := flattened.NewAssembler(&want, flattened.Limits{})
		_, err := asm.Write(b)
		err = errors.Join(err, asm.Close())
		if (err == nil) != (state.Status == fileWhole) && len(want.b) < maxMemFile/2 {
			t.Fatalf("%v, but %s: %s", err, state.Status, state.Reason)
		}
		if err == nil && !bytes.Equal(staged, want.b) {
			t.Fatalf("%d bytes, want %d", len(staged), len(want.b))
		}
	})
}

// FuzzImport makes dumps of anything that looks like one. Whatever comes of it has to verify.
func FuzzImport(f *testing.F) {
	for _, name := range []string{"makedumpfile-1.7.6-x86_64-zlib.kdump", "makedumpfile-1.7.6-x86_64-lzo.flat", "vmcore-6.1-x86_64-tiny.elf"} {
		b := vmcoretest.Sample(f, name)
		f.Add(b, uint64(0))
		f.Add(b[:len(b)-100], uint64(1))
	}
	for _, l := range vmcoretest.LackingFiles(f) {
		f.Add(l.Bytes, uint64(0))
	}
	f.Fuzz(func(t *testing.T, b []byte, seed uint64) {
		if len(b) > maxMemFile/4 || sniff(b) == formPlain {
			return
		}
		s := open(t, t.TempDir())
		fuzzUpload(t, s, b, seed)
		settle(t, s)
		list, err := s.cfg.Store.List(t.Context(), storage.Filter{})
		if err != nil || len(list) != 1 {
			t.Fatalf("%d dumps, %v", len(list), err)
		}
		check(t, s, list[0])
	})
}
