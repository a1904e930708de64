package kerneltest

import (
	"cmp"
	"encoding/binary"
	"slices"

	"github.com/corehaul/corehaul/mem"
)

// ORCForm is a layout of struct orc_entry, named after the kernel that introduced it.
type ORCForm int

// All layouts.
const (
	ORC4_14 ORCForm = iota
	ORC6_3          // with a signal bit
	ORC6_4          // with types of 3 bits
	ORC7_1          // with registers renumbered
)

// ORCForms are all layouts by the version of the kernel that introduced them.
var ORCForms = map[string]ORCForm{"4.14": ORC4_14, "6.3": ORC6_3, "6.4": ORC6_4, "7.1": ORC7_1}

// ORCEntry is an entry of a generated ORC table.
type ORCEntry struct {
	IP                 mem.VirtAddr
	SP, BP             string // registers: a key of orcRegisters
	SPOffset, BPOffset int16
	Type               string // "call" (also if empty), "regs", "iret", "end", "undefined"
}

// orcRegisters are the numbers in ORC_REG_* before 7.1, and since.
var orcRegisters = map[string][2]uint16{
	"": {0, 0}, "prev-sp": {1, 8}, "dx": {2, 2}, "di": {3, 5}, "bp": {4, 4}, "sp": {5, 3}, "r10": {6, 6}, "r13": {7, 7},
	"bp-indirect": {8, 10}, "sp-indirect": {9, 9}, "ax": {15, 1}, "wrong": {14, 14},
}

// flags returns the third word of the entry.
func (e *ORCEntry) flags(form ORCForm) uint16 {
	numbering := 0
	if form == ORC7_1 {
		numbering = 1
	}
	flags := orcRegisters[e.SP][numbering] | orcRegisters[e.BP][numbering]<<4
	if form >= ORC6_4 {
		flags |= map[string]uint16{"undefined": 0, "end": 1, "": 2, "call": 2, "regs": 3, "iret": 4}[e.Type] << 8
		if e.Type == "regs" || e.Type == "iret" {
			flags |= 1 << 11 // signal
		}
		return flags
	}
	flags |= map[string]uint16{"regs": 1, "iret": 2}[e.Type] << 8
	switch {
	case e.Type == "end" && form == ORC6_3:
		flags |= 1 << 11
	case e.Type == "end":
		flags |= 1 << 10
	case form == ORC6_3 && flags>>8 != 0:
		flags |= 1 << 10 // signal
	}
	return flags
}

// SetORC writes a table at va, sorted by address, first the addresses, then the entries. It returns where each starts, and where
// the table ends.
func (m *Machine) SetORC(va mem.VirtAddr, form ORCForm, entries []ORCEntry) (ips, table, end mem.VirtAddr) {
	entries = slices.Clone(entries)
	slices.SortStableFunc(entries, func(a, b ORCEntry) int { return cmp.Compare(a.IP, b.IP) })
	var ipBytes, entryBytes []byte
	for _, e := range entries {
		ipBytes = append(ipBytes, Uint32(uint32(e.IP-va-mem.VirtAddr(len(ipBytes))))...)
		entryBytes = binary.LittleEndian.AppendUint16(entryBytes, uint16(e.SPOffset))
		entryBytes = binary.LittleEndian.AppendUint16(entryBytes, uint16(e.BPOffset))
		entryBytes = binary.LittleEndian.AppendUint16(entryBytes, e.flags(form))
	}
	m.WriteVirt(va, append(ipBytes, entryBytes...))
	table = va + mem.VirtAddr(len(ipBytes))
	return va, table, table + mem.VirtAddr(len(entryBytes))
}
