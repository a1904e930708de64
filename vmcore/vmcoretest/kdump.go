package vmcoretest

import "encoding/binary"

// Kdump is a kdump-compressed file in the layout of 64-bit machines (makedumpfile's
// write_kdump_header), with raw pages.
type Kdump struct {
	Order      Order     // nil: little endian
	Version    uint32    // header_version; 0: 6
	PageSize   int       // 0: 4096
	Utsname    [6]string // sysname, nodename, release, version, machine, domainname
	Sec, Usec  uint64    // timestamp
	Status     uint32
	CurrentCPU uint32
	NrCPUs     uint32
	PhysBase   uint64
	DumpLevel  uint32
	Notes      []byte
	Text       string   // VMCOREINFO that only the sub header names; not with Notes
	Eraseinfo  string   // at the end of the file
	Pages      []byte   // contents of Frames, one after the other
	Frames     []uint64 // ascending; nil: 0 and so on
	SubBlocks  int      // extra blocks of the sub header
}

// Lengths in bytes.
const (
	kdumpSubLen  = 104
	kdumpDescLen = 24
)

// Bytes returns the file.
func (k *Kdump) Bytes() []byte {
	var o Order = binary.LittleEndian
	if k.Order != nil {
		o = k.Order
	}
	size, version := k.PageSize, k.Version
	if size == 0 {
		size = align
	}
	if version == 0 {
		version = 6
	}
	n, frames := len(k.Pages)/size, k.Frames
	if frames == nil {
		for i := range n {
			frames = append(frames, uint64(i))
		}
	}
	maxPFN := frames[n-1] + 1
	sub := (kdumpSubLen+len(k.Notes)+len(k.Text)+size-1)/size + k.SubBlocks
	bitmap := (int(maxPFN/8) + size) / size * size
	front := size*(1+sub) + 2*bitmap
	b := make([]byte, front+n*kdumpDescLen)
	k.main(b, o, version, []uint32{k.Status, uint32(size), uint32(sub), uint32(2 * bitmap / size), uint32(maxPFN), uint32(n), 0, 0, k.CurrentCPU, k.NrCPUs})
	end := len(b) + n*size
	k.sub(b[size:], o, version, uint64(size), maxPFN, uint64(end))
	for i := range n {
		for _, bits := range [][]byte{b[size*(1+sub):], b[size*(1+sub)+bitmap:]} {
			bits[frames[i]/8] |= 1 << (frames[i] % 8)
		}
		desc := b[front+i*kdumpDescLen:]
		o.PutUint64(desc, uint64(len(b)+i*size))
		o.PutUint32(desc[8:], uint32(size))
	}
	return append(append(b, k.Pages[:n*size]...), k.Eraseinfo...)
}

// main writes the main header. words are its fields from status on.
func (k *Kdump) main(b []byte, o Order, version uint32, words []uint32) {
	copy(b, "KDUMP   ")
	o.PutUint32(b[8:], version)
	for i, s := range k.Utsname {
		copy(b[12+65*i:12+65*i+64], s)
	}
	o.PutUint64(b[408:], k.Sec)
	o.PutUint64(b[416:], k.Usec)
	for i, w := range words {
		o.PutUint32(b[424+4*i:], w)
	}
}

// sub writes the sub header, which begins at offset at, and the rest up to the bitmaps.
func (k *Kdump) sub(b []byte, o Order, version uint32, at, maxPFN, end uint64) {
	o.PutUint64(b, k.PhysBase)
	if version >= 1 {
		o.PutUint32(b[8:], k.DumpLevel)
	}
	if version >= 3 && k.Text != "" {
		o.PutUint64(b[32:], at+kdumpSubLen)
		o.PutUint64(b[40:], uint64(len(k.Text)))
		copy(b[kdumpSubLen:], k.Text)
	}
	if version >= 4 && len(k.Notes) > 0 {
		o.PutUint64(b[48:], at+kdumpSubLen)
		o.PutUint64(b[56:], uint64(len(k.Notes)))
		copy(b[kdumpSubLen:], k.Notes)
	}
	if version >= 5 && k.Eraseinfo != "" {
		o.PutUint64(b[64:], end)
		o.PutUint64(b[72:], uint64(len(k.Eraseinfo)))
	}
	if version >= 6 {
		o.PutUint64(b[96:], maxPFN)
	}
}
