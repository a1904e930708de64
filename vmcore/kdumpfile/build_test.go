package kdumpfile_test

import (
	"encoding/binary"
	"io"
	"slices"

	"github.com/corehaul/corehaul/mem"
	"github.com/corehaul/corehaul/vmcore/kdumpfile"
	"github.com/corehaul/corehaul/vmcore/vmcoretest"
)

var (
	le = binary.LittleEndian
	be = binary.BigEndian
)

// storedPage is a page as it lies in a file.
type storedPage struct {
	stored []byte
	flags  uint32
}

// dump describes a kdump-compressed file. Its bytes method follows makedumpfile's
// write_kdump_header and write_kdump_pages and shares nothing with the Writer.
type dump struct {
	order     vmcoretest.Order
	version   uint32
	pageSize  int
	maxPFN    uint64
	ram       []mem.Extent
	pages     map[uint64]storedPage
	notes     []byte
	text      string // VMCOREINFO of version 3
	status    uint32
	oneBitmap bool
	split     *mem.Extent
}

func (d *dump) bytes() []byte {
	o, bs := d.order, d.pageSize
	sub := (104 + len(d.notes) + len(d.text) + bs - 1) / bs
	bitmapLen := (int(d.maxPFN+7)/8 + bs - 1) / bs * bs
	bitmaps := 2
	if d.oneBitmap {
		bitmaps = 1
	}
	b := make([]byte, bs*(1+sub)+bitmaps*bitmapLen)
	d.headers(b, sub, bitmaps*bitmapLen/bs)
	for _, e := range d.ram {
		for pfn := e.Start; pfn < e.End(); pfn++ {
			b[bs*(1+sub)+int(pfn/8)] |= 1 << (pfn % 8)
		}
	}
	var pfns []uint64
	for pfn := range d.pages {
		pfns = append(pfns, pfn)
		if !d.oneBitmap {
			b[bs*(1+sub)+bitmapLen+int(pfn/8)] |= 1 << (pfn % 8)
		}
	}
	slices.Sort(pfns)
	if d.split != nil {
		pfns = slices.DeleteFunc(pfns, func(p uint64) bool { return !d.split.Contains(mem.PFN(p)) })
	}
	off := uint64(len(b) + 24*len(pfns))
	var data []byte
	for _, pfn := range pfns {
		p := d.pages[pfn]
		b = o.AppendUint64(b, off+uint64(len(data)))
		b = o.AppendUint32(b, uint32(len(p.stored)))
		b = o.AppendUint32(b, p.flags)
		b = o.AppendUint64(b, 0)
		data = append(data, p.stored...)
	}
	return append(b, data...)
}

func (d *dump) headers(b []byte, sub, bitmapBlocks int) {
	o, bs := d.order, d.pageSize
	copy(b, "KDUMP   ")
	o.PutUint32(b[8:], d.version)
	for i, s := range []string{"Linux", "lab-guest", "6.1.0", "#1 SMP", "x86_64", "(none)"} {
		copy(b[12+65*i:], s)
	}
	o.PutUint64(b[408:], 1763870240)
	o.PutUint64(b[416:], 123456)
	o.PutUint32(b[424:], d.status)
	o.PutUint32(b[428:], uint32(bs))
	o.PutUint32(b[432:], uint32(sub))
	o.PutUint32(b[436:], uint32(bitmapBlocks))
	if d.version < 6 {
		o.PutUint32(b[440:], uint32(d.maxPFN))
	}
	o.PutUint32(b[460:], 2)
	s := b[bs:]
	o.PutUint64(s, 0x1000000)
	if d.version >= 1 {
		o.PutUint32(s[8:], 31)
	}
	if d.split != nil {
		o.PutUint32(s[12:], 1)
		o.PutUint64(s[16:], uint64(d.split.Start))
		o.PutUint64(s[24:], uint64(d.split.End()))
	}
	if d.version >= 3 && d.text != "" {
		o.PutUint64(s[32:], uint64(bs+104))
		o.PutUint64(s[40:], uint64(len(d.text)))
		copy(s[104:], d.text)
	}
	if d.version >= 4 {
		o.PutUint64(s[48:], uint64(bs+104))
		o.PutUint64(s[56:], uint64(len(d.notes)))
		copy(s[104:], d.notes)
	}
	if d.version >= 6 {
		if d.split != nil {
			o.PutUint64(s[80:], uint64(d.split.Start))
			o.PutUint64(s[88:], uint64(d.split.End()))
		}
		o.PutUint64(s[96:], d.maxPFN)
	}
}

// sampleDump is a file with three ranges of memory and pages of every codec that is
// written, the raw bytes of which it returns as well.
func sampleDump(o vmcoretest.Order, version uint32, pageSize int) (*dump, map[uint64][]byte) {
	d := &dump{
		order: o, version: version, pageSize: pageSize, maxPFN: 40000,
		ram:   []mem.Extent{{Start: 1, Count: 9}, {Start: 32760, Count: 20}, {Start: 39999, Count: 1}},
		pages: map[uint64]storedPage{},
	}
	if version >= 4 {
		d.notes = append(vmcoretest.Prstatus(o, 1, nil), vmcoretest.VMCOREINFO(o, "OSRELEASE=6.1.0\n")...)
	} else if version == 3 {
		d.text = "OSRELEASE=6.1.0\n"
	}
	raw := map[uint64][]byte{}
	codecs := []kdumpfile.Codec{kdumpfile.Raw, kdumpfile.Zlib, kdumpfile.Snappy, kdumpfile.Zstd}
	pfns := []uint64{1, 2, 5, 9, 32760, 32767, 32768, 32779, 39999}
	data := vmcoretest.Pages(uint64(version), len(pfns), pageSize)
	for i, pfn := range pfns {
		page := data[i*pageSize : (i+1)*pageSize]
		stored, flags := kdumpfile.EncodePage(page, codecs[i%len(codecs)])
		raw[pfn] = page
		d.pages[pfn] = storedPage{slices.Clone(stored), flags}
	}
	return d, raw
}

// memFile is a file in memory.
type memFile struct{ b []byte }

func (f *memFile) ReadAt(p []byte, off int64) (int, error) {
	if off >= int64(len(f.b)) {
		return 0, io.EOF
	}
	n := copy(p, f.b[off:])
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

func (f *memFile) WriteAt(p []byte, off int64) (int, error) {
	if end := off + int64(len(p)); end > int64(len(f.b)) {
		f.b = append(f.b, make([]byte, end-int64(len(f.b)))...)
	}
	return copy(f.b[off:], p), nil
}

func (f *memFile) Truncate(size int64) error {
	if size < int64(len(f.b)) {
		clear(f.b[size:])
		f.b = f.b[:size]
		return nil
	}
	f.b = append(f.b, make([]byte, size-int64(len(f.b)))...)
	return nil
}
