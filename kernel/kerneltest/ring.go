package kerneltest

import (
	"encoding/binary"

	"github.com/corehaul/corehaul/mem"
)

// Sizes in bytes of the structures of the lockless log ring on 64-bit machines, kernels 5.10 to 6.12.
const (
	RingDescSize = 24
	RingInfoSize = 88

	ringIDMask = 1<<62 - 1
	ringAt     = 0x100000 // offset of the structures in the kernel image
)

// States of a ring's descriptor, in the top bits of its state_var.
const (
	RingReserved  = uint64(0)
	RingCommitted = uint64(1) << 62
	RingFinalized = uint64(2) << 62
	RingReusable  = uint64(3) << 62
)

// RingImage is the contents of a log ring.
type RingImage struct {
	CountBits, SizeBits uint32
	HeadID, TailID      uint64
	Descs, Infos, Text  []byte
}

// InstallRing puts a log ring into the machine's memory and VMCOREINFO.
func (m *Machine) InstallRing(r RingImage) {
	for name, size := range map[string]uint64{
		"printk_ringbuffer": 88, "prb_desc": RingDescSize, "printk_info": RingInfoSize,
	} {
		m.Sizes[name] = size
	}
	for name, offset := range map[string]uint64{
		"printk_ringbuffer.desc_ring": 0, "printk_ringbuffer.text_data_ring": 48,
		"prb_desc_ring.count_bits": 0, "prb_desc_ring.descs": 8, "prb_desc_ring.infos": 16,
		"prb_desc_ring.head_id": 24, "prb_desc_ring.tail_id": 32,
		"prb_desc.state_var": 0, "prb_desc.text_blk_lpos": 8, "prb_data_blk_lpos.begin": 0, "prb_data_blk_lpos.next": 8,
		"prb_data_ring.size_bits": 0, "prb_data_ring.data": 8, "atomic_long_t.counter": 0,
		"printk_info.seq": 0, "printk_info.ts_nsec": 8, "printk_info.text_len": 16, "printk_info.caller_id": 20,
	} {
		m.Offsets[name] = offset
	}
	symbol, prb := m.Image(ringAt), m.Image(ringAt+0x100)
	m.Symbols["prb"] = uint64(symbol)
	m.WriteVirt(symbol, Uint64(uint64(prb)))
	descs, infos, text := m.place(r.Descs), m.place(r.Infos), m.place(r.Text)
	b := make([]byte, 88)
	binary.LittleEndian.PutUint32(b, r.CountBits)
	binary.LittleEndian.PutUint64(b[8:], uint64(descs))
	binary.LittleEndian.PutUint64(b[16:], uint64(infos))
	binary.LittleEndian.PutUint64(b[24:], r.HeadID)
	binary.LittleEndian.PutUint64(b[32:], r.TailID)
	binary.LittleEndian.PutUint32(b[48:], r.SizeBits)
	binary.LittleEndian.PutUint64(b[56:], uint64(text))
	m.WriteVirt(prb, b)
}

// place stores b in new pages of the direct map. No memory follows the last one.
func (m *Machine) place(b []byte) mem.VirtAddr {
	pa := m.nextHeap
	va := m.direct + mem.VirtAddr(pa)
	size := uint64(len(b)+2*m.PageSize()) &^ uint64(m.PageSize()-1)
	m.nextHeap += mem.PhysAddr(size+1<<21) &^ (1<<21 - 1)
	m.Map(va, pa, size, m.shift)
	m.Write(pa, b)
	return va
}

// Ring writes a log ring as the kernel does (prb_reserve and prb_commit in
// kernel/printk/printk_ringbuffer.c), but not for concurrent use.
type Ring struct {
	RingImage
	// ExactFit lets a record end with the ring, as kernels do since 6.18 (67e1b0052f6b). Older kernels put it at the start.
	ExactFit         bool
	headPos, tailPos uint64 // positions in the data ring
}

// NewRing returns an empty ring in its initial state. Its first id is so close to the largest that ids wrap when the ring
// has been filled once.
func NewRing(countBits, sizeBits uint32) *Ring {
	count := uint64(1) << countBits
	first := -(count + 1) & ringIDMask
	r := &Ring{
		RingImage: RingImage{
			CountBits: countBits, SizeBits: sizeBits, HeadID: first, TailID: first,
			Descs: make([]byte, count*RingDescSize), Infos: make([]byte, count*RingInfoSize), Text: make([]byte, 1<<sizeBits),
		},
		headPos: -(uint64(1) << sizeBits), tailPos: -(uint64(1) << sizeBits),
	}
	r.setState(first, RingReusable)
	binary.LittleEndian.PutUint64(r.Infos, -count) // so that the first record is number 0
	return r
}

func (r *Ring) desc(id uint64) []byte {
	return r.Descs[id&(1<<r.CountBits-1)*RingDescSize:][:RingDescSize]
}

func (r *Ring) info(id uint64) []byte {
	return r.Infos[id&(1<<r.CountBits-1)*RingInfoSize:][:RingInfoSize]
}

func (r *Ring) setState(id, state uint64) { binary.LittleEndian.PutUint64(r.desc(id), state|id) }

// SetState gives the newest record another state.
func (r *Ring) SetState(state uint64) { r.setState(r.HeadID, state) }

// Add writes a record and returns its id and whether its data wraps.
func (r *Ring) Add(tsNsec uint64, text string) (id uint64, wraps bool) {
	count := uint64(1) << r.CountBits
	id = (r.HeadID + 1) & ringIDMask
	if (id-count)&ringIDMask == r.TailID {
		r.dropTail()
	}
	r.HeadID = id
	info := r.info(id)
	seq := binary.LittleEndian.Uint64(info)
	if index := id & (count - 1); seq == 0 && index != 0 {
		seq = index // the descriptor was never used
	} else {
		seq += count
	}
	clear(info)
	binary.LittleEndian.PutUint64(info, seq)
	binary.LittleEndian.PutUint64(info[8:], tsNsec)
	binary.LittleEndian.PutUint16(info[16:], uint16(len(text)))
	info[19] = 6 << 5                           // level
	binary.LittleEndian.PutUint32(info[20:], 1) // caller

	begin, next, wraps := r.alloc(uint64(len(text)))
	at := begin & (1<<r.SizeBits - 1)
	binary.LittleEndian.PutUint64(r.Text[at:], id)
	if wraps {
		at = 0
		binary.LittleEndian.PutUint64(r.Text, id)
	}
	copy(r.Text[at+8:], text)
	r.setBlock(id, begin, next)
	r.setState(id, RingFinalized)
	return id, wraps
}

// AddDataless writes a record whose text did not fit.
func (r *Ring) AddDataless() {
	r.Add(0, "")
	r.setBlock(r.HeadID, 1, 1) // FAILED_LPOS
}

func (r *Ring) setBlock(id, begin, next uint64) {
	binary.LittleEndian.PutUint64(r.desc(id)[8:], begin)
	binary.LittleEndian.PutUint64(r.desc(id)[16:], next)
}

// alloc makes room for a data block with length bytes of text.
func (r *Ring) alloc(length uint64) (begin, next uint64, wraps bool) {
	size := (8 + length + 7) &^ 7
	if size > 1<<r.SizeBits {
		panic("text larger than the ring")
	}
	begin = r.headPos
	next = begin + size
	last := next
	if r.ExactFit {
		last--
	}
	if begin>>r.SizeBits != last>>r.SizeBits {
		wraps = true
		next = next>>r.SizeBits<<r.SizeBits + size
	}
	for need := next - 1<<r.SizeBits; int64(need-r.tailPos) > 0; {
		r.dropTail()
	}
	r.headPos = next
	return begin, next, wraps
}

// dropTail frees the oldest record and its data.
func (r *Ring) dropTail() {
	desc := r.desc(r.TailID)
	if binary.LittleEndian.Uint64(desc)&^ringIDMask != RingReusable {
		if next := binary.LittleEndian.Uint64(desc[16:]); next&1 == 0 {
			r.tailPos = next
		}
	}
	r.setState(r.TailID, RingReusable)
	r.TailID = (r.TailID + 1) & ringIDMask
}
