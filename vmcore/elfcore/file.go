package elfcore

import (
	"debug/elf"
	"errors"
	"io"
	"iter"
	"os"
	"sort"

	"github.com/corehaul/corehaul/internal/plainfile"
	"github.com/corehaul/corehaul/mem"
	"github.com/corehaul/corehaul/vmcore"
)

// File is an open ELF core. It is a vmcore.Image and safe for concurrent use.
type File struct {
	r     io.ReaderAt
	size  int64
	close io.Closer // nil for New

	info  *vmcore.Info
	ram   []mem.Range
	runs  []run
	shift uint
	odd   []string // ignored contradictions
}

var (
	_ vmcore.Image   = (*File)(nil)
	_ vmcore.PageRun = (*File)(nil)
	_ vmcore.Holder  = (*File)(nil)
)

// Open opens the core at path. It reads files of procfs (/proc/vmcore, /proc/kcore) through mmap windows if possible,
// and opens them like NewTolerant. It reads other files with pread and opens them like New.
func Open(path string) (*File, error) {
	f, err := plainfile.Open(path)
	if err != nil {
		return nil, err
	}
	c, err := open(f)
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return c, nil
}

func open(f *os.File) (*File, error) {
	st, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !onProcfs(f) {
		c, err := New(f, st.Size())
		if err != nil {
			return nil, err
		}
		c.close = f
		return c, nil
	}
	return openLive(f, st.Size())
}

// openLive opens a core of procfs. On success it owns f.
func openLive(f *os.File, size int64) (*File, error) {
	w := newWindows(f, size)
	c, err := NewTolerant(w, size)
	if err != nil {
		return nil, errors.Join(err, w.unmapAll())
	}
	c.close = w
	return c, nil
}

// New reads the headers and notes of a core of size bytes. Errors match vmcore.ErrUnknownFormat, ErrUnsupported,
// ErrCorrupt or ErrTruncated. New refuses PT_LOADs that map the same bytes of the file to different memory, or a part
// of the same memory to different bytes; the error names them. Bytes of PT_LOADs beyond the end of the file, or
// absent in r as a vmcore.Sparse, are missing: see HeldPages. The caller keeps ownership of r, which must be safe for
// concurrent use.
func New(r io.ReaderAt, size int64) (*File, error) { return newFile(r, size, false) }

// NewTolerant is New, but uses as much as possible of segments that contradict each other, with warnings in Info.
func NewTolerant(r io.ReaderAt, size int64) (*File, error) { return newFile(r, size, true) }

func newFile(r io.ReaderAt, size int64, tolerant bool) (*File, error) {
	h, err := readHeader(r, size)
	if err != nil {
		return nil, err
	}
	info := &vmcore.Info{
		Format:     vmcore.FormatELF,
		Inner:      vmcore.FormatELF,
		Machine:    h.machine,
		ByteOrder:  h.order,
		Segments:   h.loads,
		DumpLevel:  -1,
		CurrentCPU: -1,
	}
	if h.incomplete {
		info.Lackf("its header has makedumpfile's mark of an incomplete dump")
	}
	notes, err := h.readNotes(r, size, info.Warnf)
	switch {
	case err != nil && !tolerant && !h.notesGone(r, size):
		return nil, err
	case err != nil:
		info.Lackf("%v; there are no notes then", err)
	}
	if ofProcess(notes, h.order) {
		return nil, vmcore.Unsupportedf("PT_NOTE", h.notes[0].Offset, "the core of a process, not of a kernel")
	}
	info.AddNotes(notes)
	f := &File{r: r, size: size, info: info}
	f.setPageSize()
	m := segmentMap{pageSize: 1 << f.shift, tolerant: tolerant, warn: info.Warnf}
	if f.ram, f.runs, err = m.build(h.loads); err != nil {
		return nil, err
	}
	if len(f.runs) == 0 {
		return nil, vmcore.Corruptf("program headers", ehdrLen, "no PT_LOAD with memory")
	}
	f.odd = m.odd
	f.findHoles()
	f.info.MaxPFN = f.ram[len(f.ram)-1].Pages(f.shift).End()
	return f, nil
}

// setPageSize sets the page size of VMCOREINFO, or the usual one.
func (f *File) setPageSize() {
	n, ok := f.info.VMCOREINFO.PageSize()
	if !ok || !vmcore.ValidPageSize(n) {
		n = 4096
		if f.info.Machine == elf.EM_PPC64 {
			n = 65536
		}
		if _, there := f.info.VMCOREINFO.String("PAGESIZE"); there || f.info.Machine != elf.EM_X86_64 {
			f.info.Warnf("VMCOREINFO has no usable PAGESIZE; taking pages of %d bytes", n)
		}
	}
	f.info.PageSize, f.shift = n, vmcore.PageShift(n)
}

// Close closes the file if Open opened it.
func (f *File) Close() error {
	if f.close == nil {
		return nil
	}
	return f.close.Close()
}

// Info returns the facts of the headers and notes.
func (f *File) Info() *vmcore.Info { return f.info }

// RAM returns the memory of the PT_LOADs, each byte once.
func (f *File) RAM() []mem.Range { return f.ram }

// Pages yields the frames of which a PT_LOAD has a byte in the file, by its p_filesz. makedumpfile has the same
// frames if its bitmaps lie in a file (create_1st_bitmap_file). If they lie in memory, it drops frames that contain
// only the end of a PT_LOAD (create_bitmap_from_memhole), such as at 640 KiB on a PC. There are no errors.
func (f *File) Pages() iter.Seq2[mem.Extent, error] {
	return func(yield func(mem.Extent, error) bool) {
		end := mem.PFN(0)
		for _, r := range f.runs {
			e := mem.Range{Start: r.start, End: r.end}.Pages(f.shift)
			if _, e = e.SplitAt(end); e.Count == 0 {
				continue
			}
			if end = e.End(); !yield(e, nil) {
				return
			}
		}
	}
}

// ReadPage implements vmcore.Image.
func (f *File) ReadPage(p []byte, pfn mem.PFN) error {
	if len(p) != f.info.PageSize {
		return vmcore.ErrPageBuffer
	}
	return f.ReadPages(p, pfn)
}

// ReadPages implements vmcore.PageRun.
func (f *File) ReadPages(p []byte, pfn mem.PFN) error {
	if len(p)%f.info.PageSize != 0 {
		return vmcore.ErrPageBuffer
	}
	if pfn >= f.info.MaxPFN {
		return &vmcore.AddrError{Addr: pfn.Addr(f.shift), Err: vmcore.ErrNotPresent}
	}
	return f.ReadPhys(p, pfn.Addr(f.shift))
}

// ReadPhys implements vmcore.Reader. Bytes outside of all PT_LOADs read as zero if their page frame is present.
func (f *File) ReadPhys(p []byte, a mem.PhysAddr) error {
	i := sort.Search(len(f.runs), func(i int) bool { return f.runs[i].end > a })
	for len(p) > 0 {
		n, err := f.readSome(p, a, i)
		if err != nil {
			return &vmcore.AddrError{Addr: a, Err: err}
		}
		p = p[n:]
		a += mem.PhysAddr(n) //nolint:gosec // not negative
		for i < len(f.runs) && f.runs[i].end <= a {
			i++
		}
	}
	return nil
}

// readSome reads the first bytes of p from a. Run i is the first that ends after a.
func (f *File) readSome(p []byte, a mem.PhysAddr, i int) (int, error) {
	if i < len(f.runs) && f.runs[i].start <= a {
		r := &f.runs[i]
		p = p[:min(uint64(len(p)), uint64(r.end-a))]
		off := r.offset(a)
		if !vmcore.HasBytes(f.r, f.size, off, int64(len(p))) {
			return 0, vmcore.Truncatedf("PT_LOAD", off, "not all of %d bytes are there, in a file of %d bytes", len(p), f.size)
		}
		return len(p), readFull(f.r, p, off)
	}
	limit := f.gap(a, i)
	if limit == a {
		return 0, f.absent(a)
	}
	p = p[:min(uint64(len(p)), uint64(limit-a))]
	clear(p)
	return len(p), nil
}

// gap returns the end of the bytes from a on, before run i, that belong to frames of a run; a itself if its frame
// belongs to none.
func (f *File) gap(a mem.PhysAddr, i int) mem.PhysAddr {
	mask := mem.PhysAddr(f.info.PageSize - 1) //nolint:gosec // positive
	next := mem.PhysAddr(maxPaddr)
	if i < len(f.runs) {
		next = f.runs[i].start
		if a >= next&^mask {
			return next
		}
	}
	if i > 0 {
		if tail := (f.runs[i-1].end + mask) &^ mask; a < tail {
			return min(tail, next)
		}
	}
	return a
}

// absent distinguishes excluded memory from a hole.
func (f *File) absent(a mem.PhysAddr) error {
	i := sort.Search(len(f.ram), func(i int) bool { return f.ram[i].End > a })
	if i < len(f.ram) && f.ram[i].Contains(a) {
		return vmcore.ErrExcluded
	}
	return vmcore.ErrNotPresent
}
