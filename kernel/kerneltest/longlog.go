package kerneltest

import (
	"encoding/binary"
	"strings"

	"github.com/corehaul/corehaul/kernel"
	"github.com/corehaul/corehaul/mem"
)

// made is memory whose contents are computed when it is read: size bytes from start on, in elements of equal length.
type made struct {
	start mem.PhysAddr
	size  uint64
	elem  uint64
	fill  func(b []byte, i uint64) // b is zero, and element i
}

// MadeMemory is the memory of a machine with parts that are computed when they are read, so that a log of 2 GiB takes no
// memory.
type MadeMemory struct {
	kernel.PhysReader
	parts []made
}

// ReadPhys fills p from address a on.
func (m *MadeMemory) ReadPhys(p []byte, a mem.PhysAddr) error {
	for _, part := range m.parts {
		if a < part.start || uint64(a-part.start) >= part.size {
			continue
		}
		b := make([]byte, part.elem)
		for len(p) > 0 {
			at := uint64(a - part.start)
			clear(b)
			part.fill(b, at/part.elem)
			n := copy(p, b[at%part.elem:])
			p, a = p[n:], a+mem.PhysAddr(n)
		}
		return nil
	}
	return m.PhysReader.ReadPhys(p, a)
}

// reserve maps computed memory into the direct map.
func (m *MadeMemory) reserve(on *Machine, p made) mem.VirtAddr {
	p.start = on.nextHeap
	on.nextHeap += mem.PhysAddr((p.size + 1<<21) &^ (1<<21 - 1))
	va := X86Direct + mem.VirtAddr(p.start)
	on.Map(va, p.start, p.size, 21)
	m.parts = append(m.parts, p)
	return va
}

// InstallLongRing puts a log ring of 1<<sizeBits bytes with 1<<countBits descriptors into the machine and returns the memory
// to read it from. Its newest n records have texts of textLen bytes, a multiple of 8. The text of record i begins with
// line(i), which has at most 128 bytes. Record 0 is the last one in the ring, which was filled once.
func (m *Machine) InstallLongRing(countBits, sizeBits uint32, n, textLen uint64, line func(i uint64) string) *MadeMemory {
	out := &MadeMemory{PhysReader: &m.Memory}
	count, size, block := uint64(1)<<countBits, uint64(1)<<sizeBits, textLen+8
	// Record 0 ends with the ring, which is possible since 6.18. The others are at the start of the ring.
	begin := func(i uint64) uint64 {
		if i == 0 {
			return size - block
		}
		return size + (i-1)*block
	}
	number := func(id uint64) (i uint64, used bool) { i = (id - count/2) & (count - 1); return i, i < n }
	descs := out.reserve(m, made{size: count * RingDescSize, elem: RingDescSize, fill: func(b []byte, place uint64) {
		if i, used := number(place); used {
			binary.LittleEndian.PutUint64(b, RingFinalized|(count/2+i))
			binary.LittleEndian.PutUint64(b[8:], begin(i))
			binary.LittleEndian.PutUint64(b[16:], begin(i)+block)
		}
	}})
	infos := out.reserve(m, made{size: count * RingInfoSize, elem: RingInfoSize, fill: func(b []byte, place uint64) {
		i, _ := number(place)
		binary.LittleEndian.PutUint64(b, i)
		binary.LittleEndian.PutUint64(b[8:], i*1e6)
		binary.LittleEndian.PutUint16(b[16:], uint16(textLen))
	}})
	text := out.reserve(m, made{size: size, elem: 8, fill: func(b []byte, word uint64) {
		i, at := (word*8)/block+1, word*8%block
		if first := size - block; word*8 >= first {
			i, at = 0, word*8-first
		}
		if at == 0 {
			binary.LittleEndian.PutUint64(b, count/2+i)
			return
		}
		fillText(b, line, i, at-8)
	}})
	m.InstallRing(RingImage{CountBits: countBits, SizeBits: sizeBits, HeadID: count/2 + n - 1, TailID: count / 2})
	prb := m.Image(ringAt + 0x100)
	m.WriteVirt(prb+8, Uint64(uint64(descs)))
	m.WriteVirt(prb+16, Uint64(uint64(infos)))
	m.WriteVirt(prb+56, Uint64(uint64(text)))
	return out
}

// InstallLongLog is InstallLongRing for the log buffer of kernels 3.5 to 5.9, of size bytes. Its records begin at its start.
func (m *Machine) InstallLongLog(size uint32, n, textLen uint64, line func(i uint64) string) *MadeMemory {
	out := &MadeMemory{PhysReader: &m.Memory}
	block := LogHeader + textLen
	buf := out.reserve(m, made{size: uint64(size), elem: 8, fill: func(b []byte, word uint64) {
		i, at := word*8/block, word*8%block
		switch {
		case i >= n:
		case at == 0:
			binary.LittleEndian.PutUint64(b, i*1e6)
		case at == 8:
			binary.LittleEndian.PutUint16(b, uint16(block))
			binary.LittleEndian.PutUint16(b[2:], uint16(textLen))
		default:
			fillText(b, line, i, at-LogHeader)
		}
	}})
	m.InstallLog(NewLog(0), "printk_log")
	at := m.Image(ringAt)
	m.WriteVirt(at, Uint64(uint64(buf)))
	m.WriteVirt(at+8, Uint32(size))
	m.WriteVirt(at+24, Uint32(uint32(n*block)))
	return out
}

// maxMadeLine bounds the lines of a computed log.
const maxMadeLine = 128

// fillText fills b from offset at of the text of record i.
func fillText(b []byte, line func(i uint64) string, i, at uint64) {
	for i := range b {
		b[i] = '.'
	}
	if at >= maxMadeLine {
		return
	}
	if text := line(i); at < uint64(len(text)) {
		copy(b, text[at:])
	}
}

// LongLogRecords is how many records the ring of LongLog has: 79 MiB of text.
const LongLogRecords = 10000

// LongLog returns a ring of 128 MiB whose log has more than 64 MiB of text. line has the texts of some records, by number: 0 to
// LongLogRecords-1. The others have eight lines of 1 KiB each, because the search for the panic line costs so much a line. Their data
// blocks overlap: each begins 64 bytes after the one before. So the machine needs 3 MiB of memory, not 128.
func LongLog(line map[int]string) RingImage {
	const step, textLen = 64, 8<<10 - 8
	r := NewRing(14, 20)
	r.SizeBits, r.headPos, r.tailPos = 27, 0, 0 // the memory behind the first MiB is not there
	dots := strings.Repeat(".", step-9)
	for i := range LongLogRecords {
		if text, ok := line[i]; ok {
			r.Add(uint64(i)*1e6, text)
			continue
		}
		end := "."
		if i%16 == 0 {
			end = "\n"
		}
		id, _ := r.Add(uint64(i)*1e6, dots+end)
		binary.LittleEndian.PutUint16(r.info(id)[16:], textLen)
		r.setBlock(id, r.headPos-step, r.headPos-step+8+textLen)
	}
	return r.RingImage
}
