package elfcore

import (
	"errors"
	"fmt"
	"io"
	"os"
	"runtime/debug"
	"sync"
	"syscall"
)

// Sizes of the mmap windows. makedumpfile uses 4 MiB, too. To map a window costs the kernel one entry for each page,
// but no page faults. The mapped memory does not count as memory of this process.
const (
	windowLen  = 4 << 20
	maxWindows = 8
)

// windows reads a file through a few mmap windows, which it moves. If the kernel refuses to map (notes, device dumps,
// /proc/kcore), it reads instead. read(2) of /proc/vmcore remaps every page and is about 30 times slower.
type windows struct {
	f    *os.File
	size int64

	mu    sync.Mutex
	maps  []*window
	clock uint64
}

type window struct {
	n    int64  // the window is n*windowLen into the file
	data []byte // nil: cannot be mapped
	refs int
	used uint64
}

func newWindows(f *os.File, size int64) *windows { return &windows{f: f, size: size} }

// ReadAt implements io.ReaderAt and is safe for concurrent use.
func (w *windows) ReadAt(p []byte, off int64) (int, error) {
	done := 0
	for done < len(p) {
		n, err := w.readSome(p[done:], off+int64(done))
		done += n
		if err != nil {
			return done, err
		}
	}
	return done, nil
}

func (w *windows) readSome(p []byte, off int64) (int, error) {
	if off < 0 || off >= w.size {
		return 0, io.EOF
	}
	in := off % windowLen
	p = p[:min(int64(len(p)), windowLen-in, w.size-off)]
	m := w.acquire(off / windowLen)
	if m == nil {
		return w.f.ReadAt(p, off)
	}
	defer w.release(m)
	if in+int64(len(p)) > int64(len(m.data)) {
		return w.f.ReadAt(p, off)
	}
	return copyGuarded(p, m.data[in:])
}

// acquire returns window n, mapped, or nil if it cannot be mapped.
func (w *windows) acquire(n int64) *window {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.clock++
	for _, m := range w.maps {
		if m.n == n {
			m.used = w.clock
			m.refs++
			return m
		}
	}
	if !w.makeRoom() {
		return nil
	}
	m := &window{n: n, used: w.clock, refs: 1}
	off := n * windowLen
	data, err := syscall.Mmap(int(w.f.Fd()), off, int(min(windowLen, w.size-off)), syscall.PROT_READ, syscall.MAP_PRIVATE)
	if err == nil {
		m.data = data
	}
	w.maps = append(w.maps, m)
	return m
}

// makeRoom drops the least recently used window if there are enough. It reports false if all are in use.
func (w *windows) makeRoom() bool {
	if len(w.maps) < maxWindows {
		return true
	}
	oldest := -1
	for i, m := range w.maps {
		if m.refs == 0 && (oldest < 0 || m.used < w.maps[oldest].used) {
			oldest = i
		}
	}
	if oldest < 0 {
		return false
	}
	m := w.maps[oldest]
	w.maps = append(w.maps[:oldest], w.maps[oldest+1:]...)
	return m.unmap() == nil
}

func (m *window) unmap() error {
	if m.data == nil {
		return nil
	}
	return syscall.Munmap(m.data)
}

func (w *windows) release(m *window) {
	w.mu.Lock()
	m.refs--
	w.mu.Unlock()
}

// Close unmaps and closes.
func (w *windows) Close() error { return errors.Join(w.unmapAll(), w.f.Close()) }

func (w *windows) unmapAll() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	var err error
	for _, m := range w.maps {
		err = errors.Join(err, m.unmap())
	}
	w.maps = nil
	return err
}

// copyGuarded copies from mapped memory. Memory that cannot be read (a poisoned page, a file that became shorter) is
// an error and does not end the process.
func copyGuarded(dst, src []byte) (n int, err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		r := recover()
		if r == nil {
			return
		}
		fault, ok := r.(interface{ Addr() uintptr })
		if !ok {
			panic(r)
		}
		n, err = 0, fmt.Errorf("elfcore: fault in mapped memory at %#x: %w", fault.Addr(), syscall.EFAULT)
	}()
	return copy(dst, src), nil
}

// procSuperMagic is f_type of procfs (include/uapi/linux/magic.h).
const procSuperMagic = 0x9fa0

func onProcfs(f *os.File) bool {
	var st syscall.Statfs_t
	return syscall.Fstatfs(int(f.Fd()), &st) == nil && st.Type == procSuperMagic
}
