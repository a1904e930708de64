package dumpdir

import (
	"context"
	"errors"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/corehaul/corehaul/internal/plainfile"
	"github.com/corehaul/corehaul/mem"
	"github.com/corehaul/corehaul/vmcore"
	"github.com/corehaul/corehaul/vmcore/kdumpfile"
)

// Image is the memory in a stored dump. All readers of stored pages use it. Headers, bitmaps and descriptors are
// those that the journal requires, whatever the file has. Each page is compared with the checksums in the journal.
// The error of a wrong page matches vmcore.ErrCorrupt, and Damage lists it. Image is safe for concurrent use, and its
// memory does not grow with the dump.
//
// If the journal has lost records, the front is that of the file. Then pages without records are only decoded, and
// Damage says so, unless the file still has the SHA-256 of its seal.
type Image struct {
	vmcore.Image                   // k; its pages are not checked
	k            *kdumpfile.Reader // of the front
	finder       *chunkFinder      // nil if pages need not or cannot be compared
	exact        bool              // the journal knows all pages
	zeros        int64             // offset of the shared zero page
	close        []io.Closer

	mu      sync.Mutex
	damage  map[mem.PFN]Finding
	damaged uint64
	first   []Finding // not about a page
}

var (
	_ vmcore.Image   = (*Image)(nil)
	_ vmcore.PageRun = (*Image)(nil)
)

// OpenImage opens the memory of the dump. A temporary file holds the front of vmcore, 24 bytes for each page, until
// Close. The error matches fs.ErrNotExist if there are no pages.
func (d *Dump) OpenImage(ctx context.Context) (*Image, error) {
	return d.openImage(ctx, func() (*os.File, error) { return NewFront(os.TempDir()) })
}

// OpenImageOn is OpenImage for a process that may create no files: another one made front with NewFront. It belongs to the Image,
// or is closed with the error.
func (d *Dump) OpenImageOn(ctx context.Context, front *os.File) (*Image, error) {
	used := false
	im, err := d.openImage(ctx, func() (*os.File, error) { used = true; return front, nil })
	if !used {
		err = errors.Join(err, front.Close())
	}
	return im, err
}

func (d *Dump) openImage(ctx context.Context, newFront func() (*os.File, error)) (*Image, error) {
	vm, err := d.openVMCore()
	if err != nil {
		return nil, err
	}
	im := &Image{close: []io.Closer{vm}, damage: map[mem.PFN]Finding{}}
	if d.jr == nil || d.jr.plan == nil || d.lost || len(d.jr.broken) > 0 && d.jr.seal != nil {
		err = im.openFile(ctx, d, vm)
	} else {
		err = im.openChecked(d.jr, vm, newFront)
	}
	if err != nil {
		return nil, errors.Join(err, im.Close())
	}
	return im, nil
}

// openFile opens the file with its own front.
func (im *Image) openFile(ctx context.Context, d *Dump, vm File) error {
	size, err := vm.Size()
	if err != nil {
		return err
	}
	whole, err := d.Intact(ctx, nil)
	if err != nil {
		return err
	}
	if !whole {
		im.first = append(im.first, Finding{
			File: JournalName, Offset: -1, Where: "journal", Text: "records are lost: pages were decoded, not compared with the journal",
		})
	}
	if im.k, err = kdumpfile.New(vm, size); err != nil {
		return err
	}
	im.Image = im.k
	if whole || d.jr == nil || d.jr.plan == nil {
		return nil
	}
	im.zeros = d.jr.plan.DataOffset
	im.finder, err = newChunkFinder(d.jr, vm)
	return err
}

// openChecked makes the front from the journal and opens it.
func (im *Image) openChecked(jr *journal, vm File, newFront func() (*os.File, error)) error {
	tmp, err := newFront()
	if err != nil {
		return err
	}
	im.close = append(im.close, tmp)
	front := &scratchFront{File: tmp, end: jr.plan.firstPage()}
	kw, err := rebuildFront(front, jr, kdumpfile.Options{DataOffset: jr.plan.DataOffset})
	if err != nil {
		return err
	}
	switch jr.state() {
	case StateComplete:
		err = kw.SealComplete()
	case StatePartial:
		err = kw.SealPartial()
	}
	if err != nil {
		return err
	}
	if im.finder, err = newChunkFinder(jr, vm); err != nil {
		return err
	}
	im.exact, im.zeros = true, jr.plan.DataOffset
	if im.k, err = kdumpfile.New(front, max(jr.dataEnd, jr.plan.firstPage())); err != nil {
		return err
	}
	im.Image = im.k
	return nil
}

// NewFront creates an empty temporary file without a name in dir. Where a file cannot be without a name (NFS, overlayfs before Linux
// 6.3), or dir cannot be written, the file is in the directory for temporary files, where it may have a name for a moment.
func NewFront(dir string) (*os.File, error) {
	for _, dir := range []string{dir, os.TempDir()} {
		fd, err := unix.Open(dir, unix.O_TMPFILE|unix.O_RDWR|unix.O_CLOEXEC, 0o600)
		if err == nil {
			return os.NewFile(uintptr(fd), filepath.Join(dir, "corehaul-front")), nil
		}
	}
	tmp, err := os.CreateTemp("", ".corehaul-front-*.tmp")
	if err != nil {
		return nil, err
	}
	if err := os.Remove(tmp.Name()); err != nil {
		return nil, errors.Join(err, tmp.Close())
	}
	return tmp, nil
}

// scratchFront is the front of vmcore in a temporary file. It drops the writes behind the front, the zeros between
// chunks.
type scratchFront struct {
	*os.File
	end int64
}

func (f *scratchFront) WriteAt(p []byte, off int64) (int, error) {
	if off >= f.end {
		return len(p), nil
	}
	return f.File.WriteAt(p, off)
}

// ReadAt reads zeros where nothing was written.
func (f *scratchFront) ReadAt(p []byte, off int64) (int, error) {
	n, err := f.File.ReadAt(p, off)
	if errors.Is(err, io.EOF) {
		clear(p[n:])
		return len(p), nil
	}
	return n, err
}

// NextData implements vmcore.Holes.
func (f *scratchFront) NextData(off int64) (at int64, ok bool) {
	return plainfile.NextData(f.File, off)
}

// Unchecked says why pages may not have been compared. It is empty if all are compared, or if the file has its
// SHA-256.
func (im *Image) Unchecked() []Finding { return im.first }

// Header returns the headers for a kdump-compressed file of this memory.
func (im *Image) Header() *kdumpfile.Header { return im.k.Header() }

// ReadPage implements vmcore.Image.
func (im *Image) ReadPage(p []byte, pfn mem.PFN) error {
	if len(p) != im.Info().PageSize {
		return vmcore.ErrPageBuffer
	}
	return im.read(p, pfn, 0)
}

// ReadPages implements vmcore.PageRun.
func (im *Image) ReadPages(p []byte, pfn mem.PFN) error {
	size := im.Info().PageSize
	if len(p)%size != 0 {
		return vmcore.ErrPageBuffer
	}
	for ; len(p) > 0; pfn++ {
		if err := im.read(p[:size], pfn, 0); err != nil {
			return err
		}
		p = p[size:]
	}
	return nil
}

// ReadPhys implements vmcore.Reader.
func (im *Image) ReadPhys(p []byte, a mem.PhysAddr) error {
	shift, size := im.Info().PageShift(), im.Info().PageSize
	for len(p) > 0 {
		in := int(uint64(a) & uint64(size-1))
		n := min(len(p), size-in)
		if err := im.read(p[:n], a.PFN(shift), in); err != nil {
			return err
		}
		p = p[n:]
		if a += mem.PhysAddr(n); a == 0 && len(p) > 0 {
			return &vmcore.AddrError{Addr: a - 1, Err: vmcore.ErrNotPresent}
		}
	}
	return nil
}

// read fills p with the bytes of the page that begin at in.
func (im *Image) read(p []byte, pfn mem.PFN, in int) error {
	addr := pfn.Addr(im.Info().PageShift()) + mem.PhysAddr(in)
	if im.finder == nil {
		return im.readUnchecked(p, pfn, addr)
	}
	desc, _, err := im.k.Desc(pfn)
	switch {
	case err != nil:
		return &vmcore.AddrError{Addr: addr, Err: err}
	case desc.Missing():
		return &vmcore.AddrError{Addr: addr, Err: vmcore.ErrIncomplete}
	case desc.Offset == im.zeros:
		clear(p)
		return nil
	}
	c, err := im.finder.get(desc.Offset)
	if isDamage(err) && !im.exact {
		return im.readUnchecked(p, pfn, addr)
	}
	if err != nil {
		return err
	}
	if f := c.page(p, pfn, in, im.Info().PageSize); f != nil {
		im.addDamage(*f)
		return f.corrupt(addr)
	}
	return nil
}

// readUnchecked reads a page without a record to compare it with.
func (im *Image) readUnchecked(p []byte, pfn mem.PFN, addr mem.PhysAddr) error {
	err := im.k.ReadPhys(p, addr)
	if errors.Is(err, vmcore.ErrCorrupt) || errors.Is(err, vmcore.ErrTruncated) {
		im.addDamage(Finding{File: VMCoreName, Offset: -1, Where: "page", PFN: &pfn, Text: err.Error()})
	}
	return err
}

// addDamage adds a wrong page to the damage, once, up to the limit.
func (im *Image) addDamage(f Finding) {
	im.mu.Lock()
	defer im.mu.Unlock()
	if _, known := im.damage[*f.PFN]; known {
		return
	}
	im.damaged++
	if len(im.damage) < defaultFindings {
		im.damage[*f.PFN] = f
	}
}

// Damage returns the damage that reads have found so far: at most 1000 places by page frame, and the number of all.
func (im *Image) Damage() (found []Finding, places uint64) {
	im.mu.Lock()
	defer im.mu.Unlock()
	found = slices.Clone(im.first)
	for _, pfn := range slices.Sorted(maps.Keys(im.damage)) {
		found = append(found, im.damage[pfn])
	}
	return found, im.damaged + uint64(len(im.first))
}

// Close implements vmcore.Image.
func (im *Image) Close() error {
	var errs []error
	if im.Image != nil {
		errs = append(errs, im.Image.Close())
	}
	for _, c := range im.close {
		errs = append(errs, c.Close())
	}
	im.close = nil
	return errors.Join(errs...)
}
