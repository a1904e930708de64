package dumpdir

import (
	"errors"
	"fmt"
	"io"
	"iter"
	"math/bits"

	"github.com/corehaul/corehaul/chunk"
	"github.com/corehaul/corehaul/mem"
	"github.com/corehaul/corehaul/vmcore"
	"github.com/corehaul/corehaul/vmcore/kdumpfile"
)

// comparer is a writer that compares the written bytes with the next bytes of vmcore.
type comparer struct {
	v      *verifier
	region func(off int64, want, got byte) Finding // names one wrong byte
	bitmap *rankedBitmap                           // learns the expected bitmap, if set
	last   Finding
}

func (c *comparer) Write(want []byte) (int, error) {
	for done := 0; done < len(want); {
		n := min(len(want)-done, len(c.v.buf))
		at, got := c.v.pos, c.v.buf[:n]
		if err := c.v.next(got); err != nil {
			return done, err
		}
		for i, w := range want[done : done+n] {
			if got[i] != w {
				c.differ(at+int64(i), w, got[i])
			}
		}
		done += n
	}
	return len(want), nil
}

// bitmapOf compares the bitmap at offset start with that of runs: block by block where it has a bit, and elsewhere with
// zeros.
func (c *comparer) bitmapOf(l kdumpfile.Layout, start int64, runs iter.Seq[mem.Extent]) error {
	zero := func(off int64, got byte) { c.differ(off, 0, got) }
	err := kdumpfile.BitmapBlocks(l, runs, func(off int64, block []byte) error {
		if err := c.v.zeros(start+off, zero); err != nil {
			return err
		}
		if c.bitmap != nil {
			c.bitmap.learn(off, block)
		}
		_, err := c.Write(block)
		return err
	})
	if err != nil {
		return err
	}
	return c.v.zeros(start+l.BitmapLen, zero)
}

// differ reports a wrong byte. Neighbouring wrong bytes of the same field are one finding.
func (c *comparer) differ(off int64, want, got byte) {
	if c.bitmap != nil {
		c.bitmap.patch(off, want)
	}
	f := c.region(off, want, got)
	if n := len(c.v.rep.Findings); n > 0 && f.PFN == nil && f.Field == c.last.Field && c.last.Offset+c.last.Length == off {
		c.last.Length++
		c.v.rep.Findings[n-1].Length = c.last.Length
		return
	}
	c.last = f
	c.v.find(f)
}

// field is a named part of a header. Offsets are those of 64-bit struct disk_dump_header and kdump_sub_header in
// makedumpfile's diskdump_mod.h.
type field struct {
	off  int64
	name string
}

var mainFields = []field{
	{0, "signature"},
	{8, "header_version"},
	{12, "utsname.sysname"},
	{77, "utsname.nodename"},
	{142, "utsname.release"},
	{207, "utsname.version"},
	{272, "utsname.machine"},
	{337, "utsname.domainname"},
	{402, "padding"},
	{408, "timestamp.tv_sec"},
	{416, "timestamp.tv_usec"},
	{424, "status"},
	{428, "block_size"},
	{432, "sub_hdr_size"},
	{436, "bitmap_blocks"},
	{440, "max_mapnr"},
	{444, "total_ram_blocks"},
	{448, "device_blocks"},
	{452, "written_blocks"},
	{456, "current_cpu"},
	{460, "nr_cpus"},
	{464, "padding"},
}

var subFields = []field{
	{0, "phys_base"},
	{8, "dump_level"},
	{12, "split"},
	{16, "start_pfn"},
	{24, "end_pfn"},
	{32, "offset_vmcoreinfo"},
	{40, "size_vmcoreinfo"},
	{48, "offset_note"},
	{56, "size_note"},
	{64, "offset_eraseinfo"},
	{72, "size_eraseinfo"},
	{80, "start_pfn_64"},
	{88, "end_pfn_64"},
	{96, "max_mapnr_64"},
}

func fieldAt(fields []field, off int64) string {
	name := ""
	for _, f := range fields {
		if f.off <= off {
			name = f.name
		}
	}
	return name
}

func headerRegion(l kdumpfile.Layout) func(off int64, want, got byte) Finding {
	return func(off int64, want, got byte) Finding {
		f := Finding{File: VMCoreName, Offset: off, Length: 1, Text: fmt.Sprintf("byte is %#02x, has to be %#02x", got, want)}
		switch {
		case off < l.SubHeader:
			f.Where, f.Field = "main header", fieldAt(mainFields, off)
		case off < l.Notes:
			f.Where, f.Field = "sub header", fieldAt(subFields, off-l.SubHeader)
		default:
			f.Where, f.Field = "notes", "notes"
		}
		return f
	}
}

func bitmapRegion(where string, start int64, limit mem.PFN) func(off int64, want, got byte) Finding {
	return func(off int64, want, got byte) Finding {
		bit := bits.TrailingZeros8(want ^ got)
		pfn := mem.PFN((off-start)*8) + mem.PFN(bit) //nolint:gosec // not negative
		f := Finding{File: VMCoreName, Offset: off, Length: 1, Where: where, PFN: &pfn}
		f.Text = fmt.Sprintf("byte is %#02x, has to be %#02x", got, want)
		if pfn >= limit {
			f.PFN, f.Field = nil, "padding"
		}
		return f
	}
}

// bitmaps compares both bitmaps with the plan and the chunks.
func (v *verifier) bitmaps(h *kdumpfile.Header) error {
	l := v.layout
	first := &comparer{v: v, region: bitmapRegion("1st bitmap", l.Bitmap1, l.MaxPFN)}
	ram := kdumpfile.RAMExtents(h.RAM, vmcore.PageShift(l.PageSize), l.MaxPFN)
	if err := first.bitmapOf(l, l.Bitmap1, ram); err != nil {
		return err
	}
	v.bitmap = newRankedBitmap(v.vm, l)
	if v.as == StatePartial && len(v.jr.broken) > 0 {
		v.rep.Warnings = append(v.rep.Warnings, "2nd bitmap and page descriptors were not compared, because records of the journal are broken")
		v.bitmap = nil
		return v.skip(l.Descs)
	}
	var err error
	runs := v.jr.runs(&err)
	if v.as == StatePartial {
		runs = v.jr.presentPages(&err)
	}
	second := &comparer{v: v, region: bitmapRegion("2nd bitmap", l.Bitmap2, l.MaxPFN), bitmap: v.bitmap}
	werr := second.bitmapOf(l, l.Bitmap2, runs)
	if err := errors.Join(v.damage(err), werr); err != nil {
		return err
	}
	return v.presence()
}

// presence compares the chunks' pages with the plan. They must be equal in a complete dump.
func (v *verifier) presence() error {
	if v.as != StateComplete || len(v.jr.broken) > 0 {
		return nil
	}
	var perr, rerr error
	planned, stop := iter.Pull(v.jr.runs(&rerr))
	defer stop()
	want, more := planned()
	for have := range v.jr.presentPages(&perr) {
		for have.Count > 0 {
			if !more || !want.Contains(have.Start) || want.Start != have.Start {
				v.find(Finding{File: JournalName, Offset: -1, Where: "journal", Text: fmt.Sprintf("chunks and plan differ at pfn %d", have.Start)})
				return nil
			}
			n := min(have.Count, want.Count)
			have, want = have.Drop(n), want.Drop(n)
			if want.Count == 0 {
				want, more = planned()
			}
		}
	}
	if perr == nil && more {
		v.find(Finding{File: JournalName, Offset: -1, Where: "journal", Text: fmt.Sprintf("no chunk has pfn %d of a complete dump", want.Start)})
	}
	return errors.Join(v.damage(perr), v.damage(rerr))
}

// descs checks the descriptors of all chunks, and that only zeros follow them.
func (v *verifier) descs() error {
	end := v.layout.DescsEnd()
	if s := v.jr.seal; s != nil {
		end = v.layout.DescOffset(s.present)
	}
	if err := v.skip(end); err != nil {
		return err
	}
	if err := v.zeros(v.layout.FirstPage(), v.notZero("zero page or padding before it")); err != nil {
		return err
	}
	if v.bitmap == nil {
		return nil
	}
	if v.bitmap.lost {
		v.find(Finding{File: VMCoreName, Offset: v.layout.Descs, Where: "page_desc", Text: "not checked: the 2nd bitmap is damaged beyond use"})
		return nil
	}
	return v.jr.chunks(v.chunkDescs)
}

func (v *verifier) chunkDescs(r *chunkRecord) error {
	offset, pages, seq := r.offset, r.pages, r.seq
	for _, e := range r.extents {
		n, ok, err := v.bitmap.rank(e.Extent)
		if err != nil {
			return err
		}
		if !ok {
			v.find(Finding{File: JournalName, Offset: -1, Where: "journal", Chunk: &seq, Text: fmt.Sprintf("%v is not planned", e.Extent)})
			return nil
		}
		have := v.descBuf(e.Count)
		if _, err := v.vm.ReadAt(have, v.layout.DescOffset(n)); err != nil && !errors.Is(err, io.EOF) {
			return err
		}
		for i := range e.Count {
			want := v.layout.ZeroDesc()
			if e.Kind == chunk.Data {
				want = kdumpfile.PageDesc{Offset: offset, Size: pages[i].Size, Flags: pages[i].Flags}
				offset += int64(pages[i].Size)
			}
			v.compareDesc(have[i*kdumpfile.PageDescLen:], want, v.layout.DescOffset(n+i), e.Start+mem.PFN(i), seq)
		}
		if e.Kind == chunk.Data {
			pages = pages[e.Count:]
		}
	}
	return v.ctx.Err()
}

// descBuf returns a buffer for the descriptors of an extent.
func (v *verifier) descBuf(n uint64) []byte {
	if need := int(n) * kdumpfile.PageDescLen; need > len(v.buf) { //nolint:gosec // at most MaxChunkPages
		v.buf = make([]byte, need)
	}
	return v.buf[:n*kdumpfile.PageDescLen]
}

var descFields = []field{{0, "offset"}, {8, "size"}, {12, "flags"}, {16, "page_flags"}}

func (v *verifier) compareDesc(have []byte, want kdumpfile.PageDesc, off int64, pfn mem.PFN, chunk uint64) {
	got := kdumpfile.DecodePageDesc(have, v.jr.facts.order())
	if got == want {
		return
	}
	f := Finding{File: VMCoreName, Offset: off, Length: kdumpfile.PageDescLen, Where: "page_desc", PFN: &pfn, Chunk: &chunk}
	for i, b := range want.Append(nil, v.jr.facts.order()) {
		if have[i] != b {
			f.Field, f.Offset, f.Length = fieldAt(descFields, int64(i)), off+int64(i), 1
			break
		}
	}
	f.Text = fmt.Sprintf("descriptor says offset %d, size %d, flags %#x, page_flags %#x; has to be %d, %d, %#x, %#x",
		got.Offset, got.Size, got.Flags, got.PageFlags, want.Offset, want.Size, want.Flags, want.PageFlags)
	v.find(f)
}
