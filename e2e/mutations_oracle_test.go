package e2e

import (
	"bytes"
	"encoding/binary"
	"math"
	"slices"
)

// mutFile is a dump as it lies in a file, a flattened one put together: what is known of it without any of the product's code.
// libkdumpfile reads the pages; what it cannot tell is where bytes never came, because it takes a hole, and what lies behind the end of
// the file in its last page, for zeros.
type mutFile struct {
	b     []byte    // holes are zero
	came  []mutSpan // bytes that a record brought; nil for a file that was never flattened
	whole bool      // its end marker was there, or it needs none
	cut   bool      // it is longer than mutLimit: what lies behind that is not here
}

// mutSpan is a range of bytes in a file.
type mutSpan struct{ from, to int64 }

// mutLimit is how long a file that was put together may become; a record that lies behind that is left out.
const mutLimit = 8 << 20

// has reports whether n bytes at off have come.
func (f *mutFile) has(off, n int64) bool {
	if off < 0 || n < 0 || off > int64(len(f.b)) || n > int64(len(f.b))-off {
		return false
	}
	if f.came == nil {
		return true
	}
	for n > 0 {
		i := slices.IndexFunc(f.came, func(s mutSpan) bool { return s.from <= off && off < s.to })
		if i < 0 {
			return false
		}
		step := min(n, f.came[i].to-off)
		off, n = off+step, n-step
	}
	return true
}

const (
	mutFlatHeader = 4096
	mutFlatMagic  = "makedumpfile\x00\x00\x00\x00"
)

// mutRecord is a record of a flattened stream: where it lies there, its header included, and where its payload goes.
type mutRecord struct {
	at      int
	off     int64
	payload []byte
}

// mutRecords returns the records of a flattened stream up to the first that makes no sense, and whether the end marker follows them.
func mutRecords(b []byte) (records []mutRecord, whole bool) {
	for at := mutFlatHeader; len(b)-at >= 16; {
		off, size := int64(binary.BigEndian.Uint64(b[at:])), int64(binary.BigEndian.Uint64(b[at+8:]))
		if off == -1 && size == -1 {
			return records, true
		}
		if off < 0 || size <= 0 || off > math.MaxInt64-size {
			return records, false
		}
		n := min(size, int64(len(b)-at-16))
		records = append(records, mutRecord{at: at, off: off, payload: b[at+16 : at+16+int(n)]})
		if n < size {
			return records, false
		}
		at += 16 + int(size)
	}
	return records, false
}

// mutOpen is the file that b is, put together when it is flattened.
func mutOpen(b []byte) *mutFile {
	if !bytes.HasPrefix(b, []byte("makedumpfile")) || len(b) < mutFlatHeader {
		return &mutFile{b: b, whole: true}
	}
	f := &mutFile{came: []mutSpan{}}
	var records []mutRecord
	records, f.whole = mutRecords(b)
	for _, r := range records {
		end := r.off + int64(len(r.payload))
		if end > mutLimit {
			f.cut = true
			continue
		}
		if end > int64(len(f.b)) {
			f.b = append(f.b, make([]byte, end-int64(len(f.b)))...)
		}
		copy(f.b[r.off:], r.payload)
		f.came = append(f.came, mutSpan{r.off, end})
	}
	return f
}

// mutKdump is where the parts of a kdump-compressed file lie: a little-endian one of a 64-bit machine.
type mutKdump struct {
	f                          *mutFile
	block, half, bitmap, descs int64 // half: the bytes of one bitmap; bitmap: where the 2nd one lies
	max, from, to              int64 // pages up to max, or from..to of a piece of a split dump
	split                      bool
}

// kdump finds the parts; ok is false when the headers contradict each other.
func (f *mutFile) kdump() (k mutKdump, ok bool) {
	if !bytes.HasPrefix(f.b, []byte("KDUMP   ")) || len(f.b) < 8192 {
		return k, false
	}
	le := binary.LittleEndian
	u32 := func(off int64) int64 { return int64(le.Uint32(f.b[off:])) }
	k = mutKdump{f: f, block: u32(428)}
	sub, blocks := u32(432), u32(436)
	if k.block != 4096 || sub < 1 || sub > 256 || blocks < 2 || blocks > 256 {
		return k, false
	}
	u64 := func(off int64) int64 { return int64(le.Uint64(f.b[k.block+off:])) }
	if k.max = u32(440); u32(8) >= 6 {
		k.max = u64(96)
	}
	k.half = blocks / 2 * k.block
	k.bitmap = (1+sub)*k.block + k.half
	k.descs = k.bitmap + k.half
	if k.max < 1 || (k.max+7)/8 > k.half || k.descs > int64(len(f.b)) {
		return k, false
	}
	k.to = k.max
	if u32(8) >= 2 && u32(k.block+12) != 0 {
		if k.split, k.from, k.to = true, u64(16), u64(24); u32(8) >= 6 {
			k.from, k.to = u64(80), u64(88)
		}
	}
	return k, true
}

// front reports whether all has come that is not page data: headers, notes and bitmaps. Between them makedumpfile leaves holes.
func (k *mutKdump) front() bool {
	sub := k.f.b[k.block:]
	offNote, sizeNote := int64(binary.LittleEndian.Uint64(sub[48:])), int64(binary.LittleEndian.Uint64(sub[56:]))
	bits := (k.max + 7) / 8
	return k.f.has(0, 464) && k.f.has(k.block, 104) && k.f.has(offNote, sizeNote) && k.f.has(k.bitmap-k.half, bits) && k.f.has(k.bitmap, bits)
}

// pages calls fn for each page that the 2nd bitmap promises, with where its descriptor lies.
func (k *mutKdump) pages(fn func(pfn uint64, desc int64)) {
	desc := k.descs
	for pfn := int64(0); pfn < k.max; pfn++ {
		if k.f.b[k.bitmap+pfn/8]>>(pfn%8)&1 == 0 || pfn < k.from || pfn >= k.to {
			continue
		}
		fn(uint64(pfn), desc)
		desc += 24
	}
}

// desc reads the descriptor at off, when page data may begin at end. It has come if what is used of it is there, and the data that it names. It is
// odd if it is not all there, or breaks a rule that libkdumpfile does not hold it to: a bit that stands for no compressor, data among the headers or longer than a page.
func (k *mutKdump) desc(off, end int64) (came, odd bool) {
	if !k.f.has(off, 16) {
		return false, false
	}
	data := int64(binary.LittleEndian.Uint64(k.f.b[off:]))
	size, flags := int64(binary.LittleEndian.Uint32(k.f.b[off+8:])), binary.LittleEndian.Uint32(k.f.b[off+12:])
	odd = !k.f.has(off, 24) || data < end || size > k.block || !slices.Contains([]uint32{0, 1, 2, 4, 0x20}, flags)
	return data > 0 && size > 0 && k.f.has(data, size), odd
}

// mutLoad is a PT_LOAD.
type mutLoad struct{ at, off, paddr, filesz, memsz uint64 }

// loads returns the PT_LOADs of a little-endian ELF core; ok is false when they are not all there.
func (f *mutFile) loads() (loads []mutLoad, ok bool) {
	if !bytes.HasPrefix(f.b, []byte("\x7fELF\x02\x01")) || len(f.b) < 64 {
		return nil, false
	}
	le := binary.LittleEndian
	at, size, num := le.Uint64(f.b[32:]), uint64(le.Uint16(f.b[54:])), uint64(le.Uint16(f.b[56:]))
	if size != 56 || at > mutLimit || !f.has(int64(at), int64(size*num)) {
		return nil, false
	}
	for ; num > 0; num, at = num-1, at+size {
		p := f.b[at:]
		if le.Uint32(p) == 1 && le.Uint64(p[24:]) != math.MaxUint64 {
			loads = append(loads, mutLoad{at, le.Uint64(p[8:]), le.Uint64(p[24:]), le.Uint64(p[32:]), le.Uint64(p[40:])})
		}
	}
	return loads, true
}

// came reports whether all bytes have come that the PT_LOAD has in the file of n bytes of memory from a on.
func (l *mutLoad) came(f *mutFile, a, n uint64) bool {
	from, to := max(a, l.paddr), min(a+n, l.paddr+l.filesz)
	if from >= to {
		return true
	}
	off := l.off + (from - l.paddr)
	return off <= mutLimit && to-from <= mutLimit && f.has(int64(off), int64(to-from))
}

// under is the file with the headers and notes of another one that has the same layout; nil if it has not.
func (f *mutFile) under(base *mutFile) *mutFile {
	out := &mutFile{b: slices.Clone(f.b), came: f.came, whole: f.whole}
	if k, ok := f.kdump(); ok {
		of, ok := base.kdump()
		if of.f = f; !ok || of != k {
			return nil
		}
		copy(out.b[:464], base.b)
		copy(out.b[k.block:k.bitmap-k.half], base.b[k.block:])
		return out
	}
	loads, ok := f.loads()
	of, baseOK := base.loads()
	if !ok || !baseOK || len(loads) == 0 || len(loads) != len(of) || loads[0].at != of[0].at {
		return nil
	}
	copy(out.b[:64], base.b)
	const notes = 0xfb4 // as long as those of the samples
	end := int(of[len(of)-1].at) + 56
	copy(out.b[end:min(end+notes, len(out.b))], base.b[end:])
	return out
}
