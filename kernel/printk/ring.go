package printk

import (
	"encoding/binary"
	"iter"

	"github.com/corehaul/corehaul/kernel"
	"github.com/corehaul/corehaul/mem"
)

// The lockless ring (kernel/printk/printk_ringbuffer.h).
//
//	state_var of a descriptor:  63 62 61                                    0
//	                            state  id
//
// A descriptor's index is its id modulo the number of descriptors. Positions in the data ring count all bytes ever
// written. Modulo the ring's size they are offsets. A data block begins with the id of its descriptor (8 bytes) and
// never wraps: a block that would cross the ring's end lies at the start, with its id, and leaves only an id at its
// first place. Before 6.18 this also applies to a block that would end exactly at the ring's end.
const (
	stateShift     = 62
	idMask         = 1<<stateShift - 1
	stateCommitted = 1
	stateFinalized = 2
	blockID        = 8               // bytes of the id before the text
	maxBlock       = blockID + 1<<16 // text_len has 16 bits

	// maxSizeBits is the largest log_buf_len (LOG_BUF_LEN_MAX, 2 GiB). There is one descriptor for 32 bytes.
	maxSizeBits  = 31
	maxCountBits = 26
)

// ring is a lockless ring.
type ring struct {
	k *kernel.Kernel

	count  uint64 // of descriptors, a power of two
	descs  mem.VirtAddr
	infos  mem.VirtAddr
	headID uint64 // the newest descriptor, in use or not
	tailID uint64 // the oldest

	data     mem.VirtAddr
	dataSize uint64 // bytes, a power of two

	descSize, infoSize            uint64
	state, begin, next            uint64 // offsets in a descriptor
	seq, tsNsec, textLen, callers uint64 // offsets in an info
}

func ringRecords(k *kernel.Kernel) iter.Seq2[Record, error] {
	return func(yield func(Record, error) bool) {
		r, err := openRing(k)
		if err != nil {
			yield(Record{}, err)
			return
		}
		r.records(yield)
	}
}

// ringKeys are the offsets in struct printk_ringbuffer.
type ringKeys struct {
	size                                    uint64
	countBits, descs, infos, headID, tailID uint64 // of the descriptor ring
	sizeBits, data                          uint64 // of the data ring
}

// openRing finds the parts of the ring at SYMBOL(prb).
func openRing(k *kernel.Kernel) (*ring, error) {
	s := keys{info: k.Info()}
	r := &ring{k: k}
	q := readRingKeys(&s, r)
	symbol := s.symbol("prb")
	if s.err != nil {
		return nil, s.err
	}
	prb, err := k.ReadUint64(mem.VirtAddr(symbol))
	if err != nil {
		return nil, err
	}
	b := make([]byte, q.size)
	if err := k.ReadVirt(b, mem.VirtAddr(prb)); err != nil {
		return nil, err
	}
	countBits := binary.LittleEndian.Uint32(b[q.countBits:])
	if countBits > maxCountBits {
		return nil, &CorruptError{What: "desc_ring.count_bits", Addr: mem.VirtAddr(prb + q.countBits), Value: uint64(countBits)}
	}
	sizeBits := binary.LittleEndian.Uint32(b[q.sizeBits:])
	if sizeBits > maxSizeBits {
		return nil, &CorruptError{What: "text_data_ring.size_bits", Addr: mem.VirtAddr(prb + q.sizeBits), Value: uint64(sizeBits)}
	}
	r.count = 1 << countBits
	r.dataSize = 1 << sizeBits
	r.descs = mem.VirtAddr(binary.LittleEndian.Uint64(b[q.descs:]))
	r.infos = mem.VirtAddr(binary.LittleEndian.Uint64(b[q.infos:]))
	r.data = mem.VirtAddr(binary.LittleEndian.Uint64(b[q.data:]))
	r.headID = binary.LittleEndian.Uint64(b[q.headID:]) & idMask
	r.tailID = binary.LittleEndian.Uint64(b[q.tailID:]) & idMask
	return r, nil
}

// readRingKeys reads the offsets in descriptors and infos into r. It returns offsets from the start of struct
// printk_ringbuffer.
func readRingKeys(s *keys, r *ring) ringKeys {
	var q ringKeys
	q.size = s.size("printk_ringbuffer")
	atomic := s.offset("atomic_long_t.counter", 8, maxStruct)
	desc := s.offset("printk_ringbuffer.desc_ring", 0, q.size)
	inDesc := q.size - min(desc, q.size)
	q.countBits = desc + s.offset("prb_desc_ring.count_bits", 4, inDesc)
	q.descs = desc + s.offset("prb_desc_ring.descs", 8, inDesc)
	q.infos = desc + s.offset("prb_desc_ring.infos", 8, inDesc)
	q.headID = desc + atomic + s.offset("prb_desc_ring.head_id", 8+atomic, inDesc)
	q.tailID = desc + atomic + s.offset("prb_desc_ring.tail_id", 8+atomic, inDesc)
	text := s.offset("printk_ringbuffer.text_data_ring", 0, q.size)
	inText := q.size - min(text, q.size)
	q.sizeBits = text + s.offset("prb_data_ring.size_bits", 4, inText)
	q.data = text + s.offset("prb_data_ring.data", 8, inText)

	r.descSize = s.size("prb_desc")
	r.state = atomic + s.offset("prb_desc.state_var", 8+atomic, r.descSize)
	lpos := s.offset("prb_desc.text_blk_lpos", 0, r.descSize)
	r.begin = lpos + s.offset("prb_data_blk_lpos.begin", 8, r.descSize-min(lpos, r.descSize))
	r.next = lpos + s.offset("prb_data_blk_lpos.next", 8, r.descSize-min(lpos, r.descSize))

	r.infoSize = s.size("printk_info")
	r.seq = s.offset("printk_info.seq", 8, r.infoSize)
	r.tsNsec = s.offset("printk_info.ts_nsec", 8, r.infoSize)
	r.textLen = s.offset("printk_info.text_len", 2, r.infoSize)
	r.callers = s.offset("printk_info.caller_id", 4, r.infoSize)
	return q
}

// records yields the records from the oldest to the newest descriptor.
func (r *ring) records(yield func(Record, error) bool) {
	first, n := r.tailID, (r.headID-r.tailID)&idMask+1
	if n > r.count {
		// The ends are invalid, but the descriptors may be good. head_id changes with every record, so count back
		// from it.
		if !yield(Record{}, &CorruptError{What: "desc_ring.tail_id", Addr: r.descs, Value: r.tailID}) {
			return
		}
		first, n = (r.headID-r.count+1)&idMask, r.count
	}
	desc, info := make([]byte, r.descSize), make([]byte, r.infoSize)
	var text []byte
	room := r.dataSize
	for i := range n {
		id := (first + i) & idMask
		rec, ok, err := r.record(id, desc, info, &text)
		if uint64(len(rec.Text)) > room {
			// Blocks overlap: the log would be larger than its memory.
			yield(Record{}, &CorruptError{What: "size of all data blocks", Addr: r.data, Value: r.dataSize})
			return
		}
		room -= uint64(len(rec.Text))
		if (ok || err != nil) && !yield(rec, err) {
			return
		}
	}
}

// newest yields the areas of the records, newest first.
func (r *ring) newest(yield func(Area) bool) {
	desc := make([]byte, r.descSize)
	for i := range min((r.headID-r.tailID)&idMask+1, r.count) {
		id := (r.headID - i) & idMask
		place := id & (r.count - 1)
		at := r.descs + mem.VirtAddr(place*r.descSize)
		if !yield(Area{at, r.descSize}) || !yield(Area{r.infos + mem.VirtAddr(place*r.infoSize), r.infoSize}) {
			return
		}
		if r.k.ReadVirt(desc, at) != nil {
			continue
		}
		begin, next := binary.LittleEndian.Uint64(desc[r.begin:]), binary.LittleEndian.Uint64(desc[r.next:])
		start, end := r.block(begin, next)
		if start == 0 && !yield(Area{r.data + mem.VirtAddr(begin&(r.dataSize-1)), blockID}) {
			return
		}
		if end > start && end-start <= maxBlock && !yield(Area{r.data + mem.VirtAddr(start), end - start}) {
			return
		}
	}
}

// block returns the place in the data ring of the block between two positions. start and end are equal if there is
// none.
func (r *ring) block(begin, next uint64) (start, end uint64) {
	start, end = begin&(r.dataSize-1), next&(r.dataSize-1)
	switch {
	case start > end && end == 0:
		end = r.dataSize // it fits to the last byte: 67e1b0052f6b ("don't needlessly wrap data blocks around"), 6.18
	case start > end:
		start = 0 // it wraps
	}
	return start, end
}

// record reads the record of descriptor id into the given buffers. It reports false if the descriptor has no finished
// record: it is unused, or its record was being written when the machine stopped.
func (r *ring) record(id uint64, desc, info []byte, text *[]byte) (Record, bool, error) {
	place := id & (r.count - 1)
	if err := r.k.ReadVirt(desc, r.descs+mem.VirtAddr(place*r.descSize)); err != nil {
		return Record{}, false, err
	}
	state := binary.LittleEndian.Uint64(desc[r.state:])
	if state&idMask != id || state>>stateShift != stateCommitted && state>>stateShift != stateFinalized {
		return Record{}, false, nil
	}
	if err := r.k.ReadVirt(info, r.infos+mem.VirtAddr(place*r.infoSize)); err != nil {
		return Record{}, false, err
	}
	rec := Record{
		Seq:      binary.LittleEndian.Uint64(info[r.seq:]),
		TSNsec:   binary.LittleEndian.Uint64(info[r.tsNsec:]),
		CallerID: binary.LittleEndian.Uint32(info[r.callers:]),
	}
	if r.callers == r.textLen+4 {
		// VMCOREINFO lacks facility, flags and level. They fill the gap between these two members: one byte, five
		// bits and three bits.
		rec.Facility = info[r.textLen+2]
		rec.Flags, rec.Level = info[r.textLen+3]&0x1f, info[r.textLen+3]>>5
	}
	length := uint64(binary.LittleEndian.Uint16(info[r.textLen:]))
	begin := binary.LittleEndian.Uint64(desc[r.begin:])
	next := binary.LittleEndian.Uint64(desc[r.next:])
	var err error
	rec.Text, err = r.text(id, begin, next, length, text)
	if err != nil {
		return Record{}, false, err
	}
	return rec, true, nil
}

// text reads at most length bytes of the data block between two positions. It returns nil for a record without data.
func (r *ring) text(id, begin, next, length uint64, buf *[]byte) ([]byte, error) {
	start, end := r.block(begin, next)
	if start == end {
		return nil, nil
	}
	if end-start < blockID {
		return nil, &CorruptError{What: "position of a data block", Addr: r.data + mem.VirtAddr(start), Value: next}
	}
	if got, err := r.k.ReadUint64(r.data + mem.VirtAddr(start)); err != nil {
		return nil, err
	} else if got != id {
		return nil, &CorruptError{What: "id of a data block", Addr: r.data + mem.VirtAddr(start), Value: got}
	}
	length = min(length, end-start-blockID)
	if uint64(cap(*buf)) < length || *buf == nil {
		*buf = make([]byte, 0, max(1<<10, length)) // length is below 64 KiB
	}
	out := (*buf)[:length]
	return out, r.k.ReadVirt(out, r.data+mem.VirtAddr(start+blockID))
}
