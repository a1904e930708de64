package vmcoretest

import (
	"bytes"
	"encoding/binary"
	"testing" //nolint:depguard // this package is a test helper itself
)

// Lacking is an incomplete dump file.
type Lacking struct {
	Name    string
	Bytes   []byte
	Missing uint64 // missing pages
	Reason  string // a part of why it is partial
}

// LackingFiles returns files, made from samples, like those of a killed makedumpfile, a full disk or a stream with losses.
func LackingFiles(tb testing.TB) []Lacking {
	tb.Helper()
	raw := Sample(tb, "makedumpfile-1.7.6-x86_64-raw.kdump")
	elf := Sample(tb, "vmcore-6.1-x86_64-tiny.elf")
	flat := Sample(tb, "makedumpfile-1.7.6-x86_64-lzo.flat")
	core := &Core{Order: binary.BigEndian, Machine: 22, Loads: []Load{{Paddr: 0x1000, Data: Pages(1, 4, 4096)}}}
	big := core.Bytes()
	le := binary.LittleEndian
	descs := Descriptors(raw)
	return []Lacking{
		{"descriptors of zeros", change(raw, func(b []byte) { clear(b[descs.end-2*24 : descs.end]) }), 2, "are not in the file"},
		{"a descriptor of zeros in the midst", change(raw, func(b []byte) { clear(b[descs.from+24 : descs.from+48]) }), 1, "are not in the file"},
		{"page data beyond the end", raw[:len(raw)-4096-1], 2, "are not in the file"},
		{"descriptors beyond the end", raw[:descs.end-24*3+5], uint64(descs.end-descs.from) / 24, "within its page descriptors"},
		{"makedumpfile's mark", change(raw, func(b []byte) { b[424] |= 8 }), 0, "mark of an incomplete dump"},
		{"the mark and descriptors of zeros", change(raw, func(b []byte) { b[424] |= 8; clear(b[descs.end-24 : descs.end]) }), 1, "mark of an incomplete dump; 1 of"},
		{"a piece of a split set", Sample(tb, "makedumpfile-1.7.6-x86_64-zstd-split1.kdump"), 0, "one piece of a --split set, with pfn"},
		{"an ELF core that ends in a page", elf[:len(elf)-5000], 2, "are not in the file"},
		{"an ELF core with the mark", change(elf, func(b []byte) { le.PutUint32(b[48:], 1) }), 0, "mark of an incomplete dump"},
		{"a big-endian ELF core that ends early", big[:len(big)-3*4096], 3, "3 of 4 pages"},
		{"a flattened file without its end marker", flat[:len(flat)-16], 0, "before its end marker"},
		{"a flattened file without its sub header", WithoutRecord(flat, 2), 0, "its sub header"},
		{"a flattened file without its notes", WithoutRecord(flat, 1), 0, "of its notes"},
		{"a flattened file without page data", WithoutRecord(Flatten(raw, 512), -1), 1, "are not in the file"},
		{"a flattened ELF core without page data", WithoutRecord(Flatten(elf, 512), -1), 1, "are not in the file"},
	}
}

func change(b []byte, fn func([]byte)) []byte {
	b = bytes.Clone(b)
	fn(b)
	return b
}

// place is a part of a file: bytes [from, end).
type place struct{ from, end int }

// Bitmap2 returns the place of the 2nd bitmap, in a file like that of [Descriptors].
func Bitmap2(b []byte) (from, end int) {
	le := binary.LittleEndian
	block, sub, bitmaps := int(le.Uint32(b[428:])), int(le.Uint32(b[432:])), int(le.Uint32(b[436:]))
	return (1 + sub + bitmaps/2) * block, (1 + sub + bitmaps) * block
}

// Descriptors returns the place of the page descriptors in a kdump-compressed file of a little-endian machine.
func Descriptors(b []byte) place {
	second, descs := Bitmap2(b)
	p := place{from: descs, end: descs}
	for _, bits := range b[second:descs] {
		for ; bits != 0; bits &= bits - 1 {
			p.end += 24
		}
	}
	return p
}

// flatHeaderLen is the length of the header of a flattened file, flatRecordLen that of the header of a record.
const (
	flatHeaderLen = 4096
	flatRecordLen = 16
)

// Records returns the places of the records of a flattened file, with their headers. The end marker is the last.
func Records(flat []byte) (records []place) {
	for at := flatHeaderLen; at < len(flat); {
		end := at + flatRecordLen
		if size := int64(binary.BigEndian.Uint64(flat[at+8:])); size > 0 {
			end += int(size)
		}
		records = append(records, place{at, end})
		at = end
	}
	return records
}

// WithoutRecord returns a flattened file without record i. -1 means the last one with data.
func WithoutRecord(flat []byte, i int) []byte {
	records := Records(flat)
	if i < 0 {
		i += len(records) - 1
	}
	r := records[i]
	return append(bytes.Clone(flat[:r.from]), flat[r.end:]...)
}

// Flatten returns the flattened form of a file, in records of n bytes.
func Flatten(b []byte, n int) []byte {
	flat := make([]byte, flatHeaderLen)
	copy(flat, "makedumpfile")
	binary.BigEndian.PutUint64(flat[16:], 1)
	binary.BigEndian.PutUint64(flat[24:], 1)
	for off := 0; off < len(b); off += n {
		part := b[off:min(off+n, len(b))]
		flat = binary.BigEndian.AppendUint64(flat, uint64(off))
		flat = binary.BigEndian.AppendUint64(flat, uint64(len(part)))
		flat = append(flat, part...)
	}
	return append(flat, bytes.Repeat([]byte{0xff}, flatRecordLen)...)
}
