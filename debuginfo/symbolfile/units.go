package symbolfile

import (
	"cmp"
	"debug/dwarf"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
)

// unit is a range of addresses of a compile unit.
type unit struct {
	low, high uint64 // the first address, and the one behind the last
	offset    uint64 // of the unit in .debug_info
}

// maxRanges bounds the ranges of addresses of all units. Debian's kernel has 6,000.
const maxRanges = 1 << 22

// find returns the offset of the unit that has an address, as the file counts addresses.
func (f *File) find(pc uint64) (offset uint64, ok bool, err error) {
	if f.units == nil {
		if err := f.check(); err != nil {
			return 0, false, err
		}
		aranges, err := f.section(".debug_aranges")
		if err != nil {
			return 0, false, err
		}
		f.setUnits(readARanges(aranges))
	}
	if offset, ok = f.lookup(pc); ok || f.all {
		return offset, ok, nil
	}
	// Not every compiler makes .debug_aranges (clang does not), and not for every unit.
	units, err := f.scanUnits()
	if err != nil {
		return 0, false, err
	}
	f.setUnits(append(f.units, units...))
	f.all = true
	offset, ok = f.lookup(pc)
	return offset, ok, nil
}

// check looks at what the units claim.
func (f *File) check() error {
	info, err := f.section(".debug_info")
	if err != nil {
		return err
	}
	abbrevs, err := f.section(".debug_abbrev")
	if err != nil {
		return err
	}
	return checkUnits(info, abbrevs)
}

func (f *File) setUnits(units []unit) {
	slices.SortFunc(units, func(a, b unit) int { return cmp.Compare(a.low, b.low) })
	f.units = units
}

// lookup finds an address among the units. Ranges do not overlap in files that compilers make.
func (f *File) lookup(pc uint64) (offset uint64, ok bool) {
	i, _ := slices.BinarySearchFunc(f.units, pc, func(u unit, pc uint64) int {
		if u.low <= pc {
			return -1
		}
		return 1
	})
	for back := 0; i > 0 && back < 8; back++ { // a range that is in two lists lies beside itself
		i--
		if u := f.units[i]; pc < u.high {
			return u.offset, true
		}
	}
	return 0, false
}

// readARanges reads .debug_aranges: sets of (DWARF 5, 6.1.2)
//
//	u32 unit_length (or u32 0xffffffff, u64); u16 version (2); u32 or u64 debug_info_offset; u8 address_size, segment_selector_size
//
// padded to a multiple of 16 bytes, and pairs of address and length up to one of zeros. What is not understood ends the list.
func readARanges(b []byte) (units []unit) {
	for len(b) >= 12 {
		length, head, wide := unitLength(b)
		if length == 0 || length > uint64(len(b)) {
			break
		}
		set := b[:length]
		b = b[length:]
		offsetLen := 4
		if wide {
			offsetLen = 8
		}
		if len(set) < head+4+offsetLen || binary.LittleEndian.Uint16(set[head:]) != 2 {
			continue
		}
		offset := uint64(binary.LittleEndian.Uint32(set[head+2:]))
		if wide {
			offset = binary.LittleEndian.Uint64(set[head+2:])
		}
		if sizes := set[head+2+offsetLen:]; sizes[0] != 8 || sizes[1] != 0 {
			continue
		}
		for at := (head + 4 + offsetLen + 15) &^ 15; at+16 <= len(set) && len(units) < maxRanges; at += 16 {
			low, n := binary.LittleEndian.Uint64(set[at:]), binary.LittleEndian.Uint64(set[at+8:])
			if n > 0 && low+n > low {
				units = append(units, unit{low, low + n, offset})
			}
		}
	}
	return units
}

// unitLength reads an initial length (DWARF 5, 7.2.2). It returns the length with the field itself, and the field's size. b has 12 bytes or
// more.
func unitLength(b []byte) (length uint64, head int, wide bool) {
	n := uint64(binary.LittleEndian.Uint32(b))
	if n < 0xfffffff0 {
		return n + 4, 4, false
	}
	if n == 0xffffffff {
		if n = binary.LittleEndian.Uint64(b[4:]); n < 1<<62 {
			return n + 12, 12, true
		}
	}
	return 0, 4, false
}

// unitAt returns the bytes of the unit at an offset of .debug_info.
func unitAt(info []byte, offset uint64) ([]byte, error) {
	if offset > uint64(len(info)) || len(info)-int(offset) < 12 { //nolint:gosec // compared before
		return nil, fmt.Errorf("there is no unit at %#x of .debug_info", offset)
	}
	b := info[offset:]
	length, head, _ := unitLength(b)
	if length < uint64(head)+8 || length > uint64(len(b)) { //nolint:gosec // 4 or 12
		return nil, fmt.Errorf("the unit at %#x of .debug_info has %d bytes", offset, length)
	}
	return b[:length:length], nil
}

// maxScanned bounds the tables of abbreviations that are read for the roots of all units, in bytes: about ten seconds. Those of kernels have
// 5 MiB together.
const maxScanned = 256 << 20

// scanUnits lists the ranges that the roots of all units name.
func (f *File) scanUnits() (units []unit, err error) {
	info, err := f.section(".debug_info")
	if err != nil {
		return nil, err
	}
	abbrevs, err := f.section(".debug_abbrev")
	if err != nil {
		return nil, err
	}
	scanned := 0
	for offset := uint64(0); offset < uint64(len(info)); {
		b, err := unitAt(info, offset)
		if err != nil {
			return nil, err
		}
		length, _ := scanAbbrevs(abbrevsOf(b, abbrevs))
		if scanned += length; scanned > maxScanned {
			return nil, errors.New("its units share long tables of abbreviations")
		}
		d, err := f.dwarfOf(b)
		if err != nil {
			return nil, err
		}
		root, err := d.Reader().Next()
		if err == nil && root != nil && root.Tag == dwarf.TagCompileUnit {
			ranges, err := d.Ranges(root)
			if err != nil {
				return nil, err
			}
			if len(units)+len(ranges) > maxRanges {
				return nil, errors.New("its units have more ranges of addresses than any kernel's")
			}
			for _, r := range ranges {
				if r[0] < r[1] {
					units = append(units, unit{r[0], r[1], offset})
				}
			}
		}
		offset += uint64(len(b))
	}
	return units, nil
}

// dwarfOf returns what debug/dwarf makes of one unit alone. With all of a vmlinux, it would read the abbreviations of all units: 0.7 s.
func (f *File) dwarfOf(info []byte) (*dwarf.Data, error) {
	var sec [4][]byte
	for i, name := range []string{".debug_abbrev", ".debug_line", ".debug_ranges", ".debug_str"} {
		b, err := f.section(name)
		if err != nil {
			return nil, err
		}
		sec[i] = b
	}
	d, err := dwarf.New(sec[0], nil, nil, info, sec[1], nil, sec[2], sec[3])
	if err != nil {
		return nil, err
	}
	for _, name := range []string{".debug_addr", ".debug_line_str", ".debug_str_offsets", ".debug_rnglists"} {
		b, err := f.section(name)
		if err == nil && b != nil {
			err = d.AddSection(name, b)
		}
		if err != nil {
			return nil, err
		}
	}
	return d, nil
}
