package elfcore

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"testing"

	"github.com/corehaul/corehaul/internal/race"
	"github.com/corehaul/corehaul/vmcore"
	"github.com/corehaul/corehaul/vmcore/vmcoretest"
)

// tempFile returns a file of so many bytes that differ from window to window.
func tempFile(tb testing.TB, size int) (*os.File, []byte) {
	tb.Helper()
	b := make([]byte, size)
	for i := range b {
		b[i] = byte(i ^ i>>8 ^ i>>16 ^ i>>24)
	}
	f, err := os.Create(filepath.Join(tb.TempDir(), "core"))
	if err != nil {
		tb.Fatal(err)
	}
	if _, err := f.Write(b); err != nil {
		tb.Fatal(err)
	}
	return f, b
}

func TestWindowsReadWhatIsThere(t *testing.T) {
	f, want := tempFile(t, 3*windowLen+12345)
	w := newWindows(f, int64(len(want)))
	r := rand.New(rand.NewPCG(1, 1))
	for range 300 / race.Stride(15) {
		off := r.IntN(len(want))
		p := make([]byte, 1+r.IntN(2*windowLen))
		n, err := w.ReadAt(p, int64(off))
		if short := off+len(p) > len(want); short != errors.Is(err, io.EOF) || !short && err != nil {
			t.Fatalf("%d bytes at %d: %v", len(p), off, err)
		}
		if !bytes.Equal(p[:n], want[off:off+n]) || n != min(len(p), len(want)-off) {
			t.Fatalf("%d bytes at %d: wrong contents", n, off)
		}
	}
	if _, err := w.ReadAt(make([]byte, 1), -1); !errors.Is(err, io.EOF) {
		t.Errorf("negative offset: %v", err)
	}
	if err := w.Close(); err != nil {
		t.Error(err)
	}
}

func TestWindowsAreFew(t *testing.T) {
	const size = 3 * maxWindows * windowLen
	f, err := os.Create(filepath.Join(t.TempDir(), "core"))
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Truncate(size); err != nil {
		t.Fatal(err)
	}
	w := newWindows(f, size)
	var wg sync.WaitGroup
	for g := range 4 {
		wg.Go(func() {
			p := make([]byte, 64)
			for i := range int64(400) {
				off := (i*7919*4096 + int64(g)*windowLen) % (size - 64)
				if _, err := w.ReadAt(p, off); err != nil {
					t.Error(err)
					return
				}
				w.mu.Lock()
				n := len(w.maps)
				w.mu.Unlock()
				if n > maxWindows {
					t.Errorf("%d windows are mapped", n)
					return
				}
			}
		})
	}
	wg.Wait()
	for _, m := range w.maps {
		if m.refs != 0 {
			t.Errorf("window %d has %d readers left", m.n, m.refs)
		}
	}
	if err := w.Close(); err != nil {
		t.Error(err)
	}
}

// TestWindowsFallBack reads a file that cannot be mapped where its windows begin.
func TestWindowsFallBack(t *testing.T) {
	f, want := tempFile(t, 2*windowLen)
	w := newWindows(f, int64(len(want)))
	w.maps = []*window{{n: 0}, {n: 1}} // as after a refused mmap
	p := make([]byte, 1000)
	if _, err := w.ReadAt(p, windowLen-500); err != nil || !bytes.Equal(p, want[windowLen-500:][:1000]) {
		t.Errorf("got %v", err)
	}
	for range maxWindows {
		w.maps = append(w.maps, &window{n: -1, refs: 1})
	}
	w.maps[0].n, w.maps[0].refs = -1, 1
	if _, err := w.ReadAt(p, 0); err != nil || !bytes.Equal(p, want[:1000]) {
		t.Errorf("all windows being read: %v", err)
	}
	if err := w.Close(); err != nil {
		t.Error(err)
	}
}

// TestFaultIsAnError maps a file that then becomes shorter: touching the lost pages
// raises SIGBUS.
func TestFaultIsAnError(t *testing.T) {
	f, want := tempFile(t, windowLen)
	w := newWindows(f, int64(len(want)))
	p := make([]byte, 4096)
	if _, err := w.ReadAt(p, 0); err != nil {
		t.Fatal(err)
	}
	if err := f.Truncate(8192); err != nil {
		t.Fatal(err)
	}
	if n, err := w.ReadAt(p, 1<<20); !errors.Is(err, syscall.EFAULT) || n != 0 {
		t.Errorf("got %d, %v", n, err)
	}
	if _, err := w.ReadAt(p, 4096); err != nil || !bytes.Equal(p, want[4096:8192]) {
		t.Errorf("what is left: %v", err)
	}
	if err := w.Close(); err != nil {
		t.Error(err)
	}
}

// TestCoreThroughWindows reads a core as /proc/vmcore is read.
func TestCoreThroughWindows(t *testing.T) {
	name := filepath.Join(t.TempDir(), "core")
	b := vmcoretest.Sample(t, "vmcore-6.1-x86_64-tiny.elf")
	if err := os.WriteFile(name, b, 0o600); err != nil {
		t.Fatal(err)
	}
	plain, err := Open(name)
	if err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	mapped, err := openLive(f, int64(len(b)))
	if err != nil {
		t.Fatal(err)
	}
	p, q := make([]byte, 4096), make([]byte, 4096)
	n := 0
	for e, err := range plain.Pages() {
		if err != nil {
			t.Fatal(err)
		}
		for pfn := e.Start; pfn < e.End(); pfn++ {
			if err := errors.Join(plain.ReadPage(p, pfn), mapped.ReadPage(q, pfn)); err != nil || !bytes.Equal(p, q) {
				t.Errorf("pfn %d: %v", pfn, err)
			}
			n++
		}
	}
	if n < 20 {
		t.Errorf("only %d pages", n)
	}
	if err := errors.Join(plain.Close(), mapped.Close()); err != nil {
		t.Error(err)
	}
}

func TestOpenErrors(t *testing.T) {
	dir := t.TempDir()
	if _, err := Open(filepath.Join(dir, "none")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a file that is not there: %v", err)
	}
	name := filepath.Join(dir, "text")
	if err := os.WriteFile(name, []byte("hello"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(name); !errors.Is(err, vmcore.ErrUnknownFormat) {
		t.Errorf("a text: %v", err)
	}
	// Files of procfs say that they are empty.
	if _, err := Open("/proc/self/status"); !errors.Is(err, vmcore.ErrUnknownFormat) {
		t.Errorf("a file of procfs: %v", err)
	}
}

func BenchmarkRead(b *testing.B) {
	const size = 64 << 20
	f, _ := tempFile(b, size)
	w := newWindows(f, size)
	defer func() {
		if err := w.Close(); err != nil {
			b.Error(err)
		}
	}()
	for name, r := range map[string]io.ReaderAt{"mmap": w, "pread": f} {
		b.Run(name, func(b *testing.B) {
			p := make([]byte, 4096)
			b.SetBytes(4096)
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				if _, err := r.ReadAt(p, int64(i*4096%size)); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
