package kdumpclients

import (
	"bytes"
	"context"
	"errors"
	"math/rand/v2"
	"syscall"
	"testing"

	"github.com/corehaul/corehaul/dumpdir"
	"github.com/corehaul/corehaul/receiver/admission"
	"github.com/corehaul/corehaul/storage"
	"github.com/corehaul/corehaul/vmcore/dumpfile"
	"github.com/corehaul/corehaul/vmcore/vmcoretest"
)

// spaceStore calls a function whenever it is asked for room, which is before every chunk.
type spaceStore struct {
	storage.Store
	asked func() (storage.Space, error)
}

func (s *spaceStore) Space(context.Context) (storage.Space, error) { return s.asked() }

// bigCore is an ELF core of several chunks, without a kernel in it.
func bigCore() []byte {
	data := make([]byte, 5<<20)
	r := rand.New(rand.NewPCG(8, 8))
	for i := range data {
		data[i] = byte(r.Uint32()) & 0x3f
	}
	clear(data[1<<20 : 1<<20+5*4096])
	core := vmcoretest.Core{Type: 4, Machine: 62, Loads: []vmcoretest.Load{{Paddr: 1 << 20, Data: data}}}
	return core.Bytes()
}

// stopAt imports until the room was asked for n times, and reports whether that was before the end.
func stopAt(t *testing.T, s *Service, n int, full bool) bool {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	real := s.cfg.Store
	withRoom(s, &spaceStore{real, func() (storage.Space, error) {
		if n--; n < 0 && full {
			return storage.Space{Total: 1, Free: 0}, nil
		}
		if n < 0 {
			cancel()
		}
		return storage.Space{}, nil
	}}, admission.Limits{Reserve: 1})
	defer withRoom(s, real, admission.Limits{})
	for _, j := range s.due() {
		err := j.work(ctx)
		s.jobs.release(j.dir, false)
		if err == nil {
			return false
		}
		if !errors.Is(err, context.Canceled) && !errors.Is(err, syscall.ENOSPC) {
			t.Fatal(err)
		}
	}
	return true
}

// TestImportInterrupted stops an import before every chunk, and lets the disk be full there, and goes on in another process.
func TestImportInterrupted(t *testing.T) {
	b := bigCore()
	want, err := dumpfile.New(bytes.NewReader(b), int64(len(b)))
	if err != nil {
		t.Fatal(err)
	}
	for _, full := range []bool{false, true} {
		for n := 0; ; n++ {
			dir := t.TempDir()
			s := open(t, dir)
			if err := put(t, treeOf(t, s, "n1"), "/vmcore", b, 1<<20).Close(); err != nil {
				t.Fatal(err)
			}
			more := stopAt(t, s, n, full)
			s = open(t, dir)
			drain(t, s)
			e := only(t, s)
			if got := samePages(t, check(t, s, e), want); e.Manifest.State != dumpdir.StateComplete || got != count(t, want) || e.Manifest.Encodings["zero"] != 5 {
				t.Fatalf("stopped at %d: %+v, %d pages", n, e.Manifest, got)
			}
			if !more {
				if n < 5 {
					t.Errorf("only %d chunks", n)
				}
				break
			}
		}
	}
}
