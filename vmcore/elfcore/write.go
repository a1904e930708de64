package elfcore

import (
	"context"
	"debug/elf"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/corehaul/corehaul/mem"
	"github.com/corehaul/corehaul/vmcore"
)

// WriteOptions configure Write.
type WriteOptions struct {
	// Vaddr gives the direct-map address of physical memory, for p_vaddr.
	// makedumpfile takes PAGE_OFFSET from it, and so does crash for kernels
	// whose VMCOREINFO does not have it. Without it p_vaddr is as in the core
	// that img was read from, or else 0.
	Vaddr func(mem.PhysAddr) mem.VirtAddr
	// Text, if Memsz is not 0, is the mapping of the kernel image: Write adds a PT_LOAD for it that refers to the
	// same bytes of the file.
	Text vmcore.Segment
	// Incomplete marks the core as incomplete, also if img is complete.
	Incomplete bool
}

// WriteStats is the result of Write.
type WriteStats struct {
	Segments int    // PT_LOADs
	Bytes    int64  // in all
	Pages    uint64 // with contents
	Zeroed   uint64 // without contents, written as zeros to close a small gap
	Lost     uint64 // should have contents but could not be read; written as zeros
}

// Write writes the memory of img as an ELF core in one pass, so that w can be a pipe. It leaves out pages without
// contents as makedumpfile -E does: 256 or more in a row become a PT_LOAD whose p_filesz is less than its p_memsz,
// fewer become zeros. It leaves out all pages that the file of img lacks. An incomplete dump gets makedumpfile's
// mark. Errors come from w, ctx, and the medium of img. Pages that the dump has lost become zeros and are counted.
func Write(ctx context.Context, w io.Writer, img vmcore.Image, opt WriteOptions) (WriteStats, error) {
	segs, err := planSegments(img)
	if err != nil {
		return WriteStats{}, err
	}
	out := &writer{ctx: ctx, w: w, img: img, info: img.Info(), opt: opt, segs: segs}
	out.stats.Segments = len(segs)
	if err := out.headers(); err != nil {
		return out.stats, err
	}
	for _, s := range segs {
		if err := out.pages(mem.Extent{Start: s.start, Count: s.filled}); err != nil {
			return out.stats, err
		}
	}
	return out.stats, nil
}

type writer struct {
	ctx   context.Context //nolint:containedctx // lives as long as one call of Write
	w     io.Writer
	img   vmcore.Image
	info  *vmcore.Info
	opt   WriteOptions
	segs  []outSeg
	buf   []byte
	stats WriteStats
}

func (w *writer) write(b []byte) error {
	n, err := w.w.Write(b)
	w.stats.Bytes += int64(n)
	return err
}

// headers writes everything before the first page.
func (w *writer) headers() error {
	text := w.textSegment()
	num := 1 + len(w.segs)
	if text != nil {
		num++
	}
	notes := int64(ehdrLen + num*phdrLen)
	data := roundUp(notes+int64(len(w.info.Notes)), int64(w.info.PageSize))
	var o binary.AppendByteOrder = binary.LittleEndian
	if w.info.ByteOrder == binary.BigEndian {
		o = binary.BigEndian
	}
	b := w.ehdr(o, num)
	b = appendPhdr(b, o, elf.PT_NOTE, 0, vmcore.Segment{Offset: notes, Filesz: uint64(len(w.info.Notes))})
	loads := w.loads(data)
	if text != nil {
		b = appendPhdr(b, o, elf.PT_LOAD, elf.PF_R|elf.PF_W|elf.PF_X, text(loads))
		w.stats.Segments++
	}
	for _, s := range loads {
		b = appendPhdr(b, o, elf.PT_LOAD, elf.PF_R|elf.PF_W|elf.PF_X, s)
	}
	b = append(b, w.info.Notes...)
	return w.write(append(b, make([]byte, data-int64(len(b)))...))
}

// loads returns the PT_LOADs; their pages begin at offset data.
func (w *writer) loads(data int64) []vmcore.Segment {
	shift := w.info.PageShift()
	var loads []vmcore.Segment
	for _, s := range w.segs {
		g := vmcore.Segment{Paddr: s.start.Addr(shift), Offset: data, Filesz: s.filled << shift, Memsz: s.count << shift}
		g.Vaddr = w.vaddr(g.Paddr)
		loads = append(loads, g)
		data += int64(g.Filesz)
	}
	return loads
}

// textSegment returns a function that makes the PT_LOAD of the kernel image, if another PT_LOAD contains all of it.
func (w *writer) textSegment() func([]vmcore.Segment) vmcore.Segment {
	text := w.opt.Text
	in := func(g vmcore.Segment) bool {
		return text.Paddr >= g.Paddr && text.Memsz <= g.Filesz && uint64(text.Paddr-g.Paddr) <= g.Filesz-text.Memsz
	}
	if text.Memsz == 0 {
		return nil
	}
	for i, g := range w.loads(0) {
		if in(g) {
			return func(loads []vmcore.Segment) vmcore.Segment {
				text.Offset = loads[i].Offset + int64(text.Paddr-loads[i].Paddr)
				text.Filesz = text.Memsz
				return text
			}
		}
	}
	return nil
}

// maxVaddrSource bounds the search for the address of each PT_LOAD.
const maxVaddrSource = 4096

func (w *writer) vaddr(a mem.PhysAddr) mem.VirtAddr {
	if w.opt.Vaddr != nil {
		return w.opt.Vaddr(a)
	}
	var best vmcore.Segment
	if len(w.info.Segments) <= maxVaddrSource {
		for _, s := range w.info.Segments {
			// The largest one is the direct map, not the kernel image.
			if a >= s.Paddr && uint64(a-s.Paddr) < s.Memsz && s.Memsz > best.Memsz {
				best = s
			}
		}
	}
	if best.Memsz == 0 {
		return 0
	}
	return best.Vaddr + mem.VirtAddr(a-best.Paddr)
}

func (w *writer) ehdr(o binary.AppendByteOrder, phnum int) []byte {
	data := elf.ELFDATA2LSB
	if o == binary.AppendByteOrder(binary.BigEndian) {
		data = elf.ELFDATA2MSB
	}
	b := append([]byte(elf.ELFMAG), byte(elf.ELFCLASS64), byte(data), byte(elf.EV_CURRENT))
	b = append(b, make([]byte, elf.EI_NIDENT-len(b))...)
	b = o.AppendUint16(b, uint16(elf.ET_CORE))
	b = o.AppendUint16(b, uint16(w.info.Machine))
	b = o.AppendUint32(b, uint32(elf.EV_CURRENT))
	b = o.AppendUint64(b, 0)       // e_entry
	b = o.AppendUint64(b, ehdrLen) // e_phoff
	b = o.AppendUint64(b, 0)       // e_shoff
	var flags uint32
	if w.info.Incomplete || w.opt.Incomplete {
		flags = efIncomplete
	}
	b = o.AppendUint32(b, flags)
	b = o.AppendUint16(b, ehdrLen)
	b = o.AppendUint16(b, phdrLen)
	b = o.AppendUint16(b, uint16(phnum))
	return append(b, make([]byte, ehdrLen-len(b))...)
}

func appendPhdr(b []byte, o binary.AppendByteOrder, t elf.ProgType, f elf.ProgFlag, s vmcore.Segment) []byte {
	b = o.AppendUint32(b, uint32(t))
	b = o.AppendUint32(b, uint32(f))
	b = o.AppendUint64(b, uint64(s.Offset))
	b = o.AppendUint64(b, uint64(s.Vaddr))
	b = o.AppendUint64(b, uint64(s.Paddr))
	b = o.AppendUint64(b, s.Filesz)
	b = o.AppendUint64(b, s.Memsz)
	return o.AppendUint64(b, 0) // p_align
}

// writeBatch is how many bytes are written at a time.
const writeBatch = 1 << 20

func (w *writer) pages(e mem.Extent) error {
	if w.buf == nil {
		w.buf = make([]byte, writeBatch)
	}
	size := uint64(w.info.PageSize)
	for e.Count > 0 {
		if err := w.ctx.Err(); err != nil {
			return err
		}
		n := min(e.Count, writeBatch/size)
		b := w.buf[:n*size]
		for i := range n {
			if err := w.page(b[i*size:(i+1)*size], e.Start+mem.PFN(i)); err != nil {
				return err
			}
		}
		if err := w.write(b); err != nil {
			return err
		}
		e = e.Drop(n)
	}
	return nil
}

func (w *writer) page(p []byte, pfn mem.PFN) error {
	err := w.img.ReadPage(p, pfn)
	if err == nil {
		w.stats.Pages++
		return nil
	}
	clear(p)
	switch {
	case errors.Is(err, vmcore.ErrExcluded), errors.Is(err, vmcore.ErrNotPresent):
		w.stats.Zeroed++
	case errors.Is(err, vmcore.ErrIncomplete), errors.Is(err, vmcore.ErrCorrupt), errors.Is(err, vmcore.ErrTruncated):
		w.stats.Lost++
	default:
		return fmt.Errorf("elfcore: reading pfn %d: %w", pfn, err)
	}
	return nil
}

func roundUp(n, to int64) int64 { return (n + to - 1) / to * to }
