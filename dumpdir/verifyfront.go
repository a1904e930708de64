package dumpdir

import (
	"errors"
	"fmt"
	"io"
	"iter"
	"math/bits"

	"github.com/corehaul/corehaul/mem"
	"github.com/corehaul/corehaul/vmcore"
	"github.com/corehaul/corehaul/vmcore/kdumpfile"
)

// comparer is a writer that compares what is written with the next bytes of vmcore.
type comparer struct {
	v      *verifier
	region func(off int64, want, got byte) Finding // names one wrong byte
	bitmap *rankedBitmap                           // learns what was expected, when set
	last   Finding
}

func (c *comparer) Write(want []byte) (int, error) {
	for done := 0; done < len(want); {
		n := min(len(want)-done, len(c.v.buf))
		at, got := c.v.pos, c.v.buf[:n]
		if err := c.v.next(got); err != nil {
			return done, err
		}
		if c.bitmap != nil {
			c.bitmap.learn(want[done : done+n])
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

// differ reports a wrong byte; neighbours in the same field are one finding.
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

// field is a named stretch of a header. Offsets are those of formats' tables: struct
// disk_dump_header and kdump_sub_header in makedumpfile's diskdump_mod.h, 64-bit.
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
	if _, err := kdumpfile.WriteBitmap(first, l, ram); err != nil {
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
		runs = v.jr.present(&err)
	}
	second := &comparer{v: v, region: bitmapRegion("2nd bitmap", l.Bitmap2, l.MaxPFN), bitmap: v.bitmap}
	_, werr := kdumpfile.WriteBitmap(second, l, runs)
	if err := errors.Join(v.damage(err), werr); err != nil {
		return err
	}
	return v.presence()
}

// presence compares the chunks' pages with the plan, where they have to be the same.
func (v *verifier) presence() error {
	if v.as != StateComplete || len(v.jr.broken) > 0 {
		return nil
	}
	var perr, rerr error
	planned, stop := iter.Pull(v.jr.runs(&rerr))
	defer stop()
	want, more := planned()
	for have := range v.jr.present(&perr) {
		for have.Count > 0 {
			if !more || !want.Contains(have.Start) || want.Start != have.Start {
				v.find(Finding{File: JournalName, Offset: -1, Where: "journal", Text: fmt.Sprintf("chunks and plan differ at pfn %d", have.Start)})
				return nil
			}
			n := min(have.Count, want.Count)
			have = mem.Extent{Start: have.Start + mem.PFN(n), Count: have.Count - n}
			want = mem.Extent{Start: want.Start + mem.PFN(n), Count: want.Count - n}
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

// descs checks the descriptors of all chunks, and that nothing but zeros follows them.
func (v *verifier) descs() error {
	end := v.layout.DescsEnd()
	if s := v.jr.seal; s != nil {
		end = v.layout.DescOffset(s.present)
	}
	if err := v.skip(end); err != nil {
		return err
	}
	if err := v.zeros(v.layout.FirstPage(), "zero page or padding before it"); err != nil {
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
			if e.Kind == ExtentData {
				want = kdumpfile.PageDesc{Offset: offset, Size: pages[i].Size, Flags: pages[i].Flags}
				offset += int64(pages[i].Size)
			}
			v.compareDesc(have[i*kdumpfile.PageDescLen:], want, v.layout.DescOffset(n+i), e.Start+mem.PFN(i), seq)
		}
		if e.Kind == ExtentData {
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

// rankedBitmap answers how many bits are set before a page, of the bitmap that has to be
// in the file: the one that is there with the wrong bytes put right.
type rankedBitmap struct {
	r      io.ReaderAt
	start  int64
	ranks  map[int64]uint64 // bits before each block that has one
	right  map[int64]byte   // wrong bytes put right, by file offset
	lost   bool             // too many of them
	pos    int64            // in the bitmap, while it is learnt
	total  uint64
	block  [rankBlock]byte
	blockN int64
}

const (
	rankBlock  = 4096
	maxPatches = 1 << 16
)

func newRankedBitmap(r io.ReaderAt, l kdumpfile.Layout) *rankedBitmap {
	return &rankedBitmap{r: r, start: l.Bitmap2, ranks: make(map[int64]uint64), right: make(map[int64]byte), blockN: -1}
}

// learn takes the next bytes of the bitmap as it has to be.
func (b *rankedBitmap) learn(p []byte) {
	for i, x := range p {
		if x == 0 {
			continue
		}
		n := (b.pos + int64(i)) / rankBlock
		if _, ok := b.ranks[n]; !ok {
			b.ranks[n] = b.total
		}
		b.total += uint64(bits.OnesCount8(x)) //nolint:gosec // at most 8
	}
	b.pos += int64(len(p))
}

func (b *rankedBitmap) patch(off int64, want byte) {
	if len(b.right) == maxPatches {
		b.lost = true
		return
	}
	b.right[off] = want
}

// rank returns how many pages come before e. ok is false when a page of e is not in the bitmap.
func (b *rankedBitmap) rank(e mem.Extent) (n uint64, ok bool, err error) {
	for pfn := e.Start; pfn < e.End(); {
		blk := int64(pfn / (rankBlock * 8)) //nolint:gosec // below 1 << 25
		if err := b.load(blk); err != nil {
			return 0, false, err
		}
		lo := uint64(pfn % (rankBlock * 8))
		hi := min(lo+uint64(e.End()-pfn), rankBlock*8)
		for i := lo; i < hi; i++ {
			if b.block[i/8]>>(i%8)&1 == 0 {
				return 0, false, nil
			}
		}
		if pfn == e.Start {
			n = b.ranks[blk] + b.before(lo)
		}
		pfn += mem.PFN(hi - lo)
	}
	return n, true, nil
}

// before counts the bits set below bit i of the block.
func (b *rankedBitmap) before(i uint64) (n uint64) {
	for j := uint64(0); j+64 <= i; j += 64 {
		n += uint64(bits.OnesCount64(le.Uint64(b.block[j/8:]))) //nolint:gosec // at most 64
	}
	if rest := i % 64; rest > 0 {
		n += uint64(bits.OnesCount64(le.Uint64(b.block[i/64*8:]) << (64 - rest))) //nolint:gosec // at most 64
	}
	return n
}

func (b *rankedBitmap) load(n int64) error {
	if b.blockN == n {
		return nil
	}
	b.blockN = -1
	at := b.start + n*rankBlock
	if _, err := b.r.ReadAt(b.block[:], at); err != nil {
		return err
	}
	if len(b.right) > 0 {
		for i := range b.block {
			if x, ok := b.right[at+int64(i)]; ok {
				b.block[i] = x
			}
		}
	}
	b.blockN = n
	return nil
}
