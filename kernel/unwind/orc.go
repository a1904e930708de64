package unwind

import (
	"encoding/binary"
	"fmt"
	"sort"

	"github.com/corehaul/corehaul/mem"
)

// ORCTable is a table of ORC entries, of the kernel image or of a module: two arrays that are sorted by address.
type ORCTable struct {
	IPs     mem.VirtAddr // of s32, each relative to its own place: where the code of an entry starts
	Entries mem.VirtAddr // of struct orc_entry
	Count   int
}

const (
	orcIPSize    = 4
	orcEntrySize = 6       // struct orc_entry is packed
	maxORC       = 8 << 20 // entries; a distribution's kernel has 430,000
)

// orcReg is what an entry takes as the base of an address.
type orcReg uint8

const (
	orcUndefined orcReg = iota
	orcPrevSP
	orcAX
	orcDX
	orcDI
	orcBP
	orcSP
	orcR10
	orcR13
	orcBPIndirect
	orcSPIndirect
	orcUnknown
)

// orcKind is what an entry says of the frame before.
type orcKind uint8

const (
	kindUndefined orcKind = iota // nothing is known
	kindEnd                      // there is none
	kindCall                     // it called
	kindRegs                     // it was interrupted, and pt_regs lie on the stack
	kindIRet                     // it was interrupted, and what the CPU pushed lies on the stack
)

// orcEntry is a decoded struct orc_entry.
type orcEntry struct {
	spOffset, bpOffset int64
	spReg, bpReg       orcReg
	kind               orcKind
}

// orcLayout tells how entries are encoded. Their first two words are always sp_offset and bp_offset, and a third begins with
// 4 bits of sp_reg and 4 of bp_reg.
type orcLayout struct {
	// wideTypes is the layout since 6.4 (fb799447ae29, "x86,objtool: Split UNWIND_HINT_EMPTY in two"): 3 bits of type, 1 of
	// signal. Before, it is 2 bits of type and 1 of end, in 6.3 with 1 of signal before it.
	wideTypes bool
	// renumbered are the registers of 7.1.
	renumbered bool
}

// Numbers of registers in ORC_REG_* (arch/x86/include/asm/orc_types.h).
var (
	orcRegs4_14 = [16]orcReg{
		orcUndefined, orcPrevSP, orcDX, orcDI, orcBP, orcSP, orcR10, orcR13, orcBPIndirect, orcSPIndirect,
		orcUnknown, orcUnknown, orcUnknown, orcUnknown, orcUnknown, orcUnknown,
	}
	orcRegs7_1 = [16]orcReg{
		orcUndefined, orcAX, orcDX, orcSP, orcBP, orcDI, orcR10, orcR13, orcPrevSP, orcSPIndirect, orcBPIndirect,
		orcUnknown, orcUnknown, orcUnknown, orcUnknown, orcUnknown,
	}
)

// Numbers that tell the layouts apart.
const (
	sp4_14, sp7_1     = 5, 3
	call4_14, call6_4 = 0, 2
)

// decode decodes an entry.
func (l orcLayout) decode(b [orcEntrySize]byte) orcEntry {
	flags := binary.LittleEndian.Uint16(b[4:])
	regs := &orcRegs4_14
	if l.renumbered {
		regs = &orcRegs7_1
	}
	e := orcEntry{
		spOffset: int64(int16(binary.LittleEndian.Uint16(b[0:]))), //nolint:gosec // s16
		bpOffset: int64(int16(binary.LittleEndian.Uint16(b[2:]))), //nolint:gosec // s16
		spReg:    regs[flags&0xf], bpReg: regs[flags>>4&0xf],
	}
	const end = 3 << 10 // bit 10, or in 6.3 bit 11; signal is set only with a register
	switch {
	case l.wideTypes:
		e.kind = [8]orcKind{kindUndefined, kindEnd, kindCall, kindRegs, kindIRet}[flags>>8&7]
	case e.spReg == orcUndefined && flags&end != 0:
		e.kind = kindEnd
	case e.spReg != orcUndefined:
		e.kind = [4]orcKind{kindCall, kindRegs, kindIRet}[flags>>8&3]
	}
	return e
}

// findORC finds the table of the kernel image and its layout. A kernel that has none is no error: it is walked by frame pointers.
func (u *Unwinder) findORC() error {
	ips, ok1 := u.symbols.Address("__start_orc_unwind_ip")
	end, ok2 := u.symbols.Address("__stop_orc_unwind_ip")
	entries, ok3 := u.symbols.Address("__start_orc_unwind")
	if !ok1 || !ok2 || !ok3 {
		return nil
	}
	if end <= ips || end-ips > maxORC*orcIPSize {
		return fmt.Errorf("ORC tables from %v to %v", ips, end)
	}
	u.image = ORCTable{IPs: ips, Entries: entries, Count: int((end - ips) / orcIPSize)} //nolint:gosec // at most maxORC
	return u.findLayout()
}

// findLayout counts the registers and types of entries at the start, in the middle and at the end. Most entries by far are of
// C functions: their frames end in a call, and their base is the stack pointer.
func (u *Unwinder) findLayout() error {
	const sample = 1024
	var regs, types [16]int
	total := 0
	for _, at := range []int{0, u.image.Count/2 - sample/2, u.image.Count - sample} {
		at = max(0, at)
		b := make([]byte, min(sample, u.image.Count-at)*orcEntrySize)
		if err := u.kernel.ReadVirt(b, u.image.Entries+mem.VirtAddr(at*orcEntrySize)); err != nil {
			return fmt.Errorf("ORC entries: %w", err)
		}
		for ; len(b) > 0; b = b[orcEntrySize:] {
			flags := binary.LittleEndian.Uint16(b[4:])
			regs[flags&0xf]++
			types[flags>>8&7]++
			total++
		}
	}
	u.layout = orcLayout{wideTypes: types[call6_4] > types[call4_14], renumbered: regs[sp7_1] > regs[sp4_14]}
	if max(types[call6_4], types[call4_14]) <= total/2 || max(regs[sp7_1], regs[sp4_14]) <= total/4 {
		return fmt.Errorf("ORC entries are of an unknown layout: of %d, %v have each register and %v each type", total, regs, types)
	}
	return nil
}

// orcAt returns the entry for address a. ok is false if there is none, as for code that was made at run time.
func (u *Unwinder) orcAt(a mem.VirtAddr) (e orcEntry, ok bool, err error) {
	table, ok := u.tableFor(a)
	if !ok {
		return e, false, nil
	}
	i, err := u.search(table, a)
	if err != nil || i < 0 {
		return e, false, err
	}
	var b [orcEntrySize]byte
	if err := u.kernel.ReadVirt(b[:], table.Entries+mem.VirtAddr(i*orcEntrySize)); err != nil {
		return e, false, fmt.Errorf("ORC entry %d: %w", i, err)
	}
	return u.layout.decode(b), true, nil
}

// tableFor returns the table that has address a.
func (u *Unwinder) tableFor(a mem.VirtAddr) (ORCTable, bool) {
	for _, r := range u.code {
		if r.start <= a && a < r.end {
			return u.image, true
		}
	}
	if u.sources.Modules == nil {
		return ORCTable{}, false
	}
	table, ok := u.sources.Modules.ORC(a)
	return table, ok && table.Count > 0 && table.Count <= maxORC
}

// search returns the index of the last entry of a table whose code starts at or before a, or -1.
func (u *Unwinder) search(t ORCTable, a mem.VirtAddr) (int, error) {
	var failure error
	ip := func(i int) mem.VirtAddr {
		at := t.IPs + mem.VirtAddr(i*orcIPSize) //nolint:gosec // i is an index
		offset, err := u.kernel.ReadUint32(at)
		if err != nil && failure == nil {
			failure = fmt.Errorf("address of ORC entry %d: %w", i, err)
		}
		return at + mem.VirtAddr(int64(int32(offset))) //nolint:gosec // s32, with its sign
	}
	i := sort.Search(t.Count, func(i int) bool { return failure != nil || ip(i) > a }) - 1
	if failure != nil {
		return 0, failure
	}
	if i < 0 {
		return i, nil
	}
	if low := ip(i); low > a || i > 0 && ip(i-1) > low || i+1 < t.Count && ip(i+1) <= a {
		return 0, fmt.Errorf("ORC entries around %d are not sorted: it starts at %v", i, low)
	}
	return i, nil
}
