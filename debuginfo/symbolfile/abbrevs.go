package symbolfile

import (
	"debug/dwarf"
	"errors"
	"fmt"
	"math"
)

// Forms of attributes (DWARF 5, 7.5.6).
const (
	formRefAddr       = 0x10 // DW_FORM_ref_addr: an offset in all of .debug_info
	formIndirect      = 0x16 // DW_FORM_indirect: the entry says the form
	formImplicitConst = 0x21 // DW_FORM_implicit_const: the value stands behind the form
)

// maxUnits bounds the units of a file. A kernel with all drivers built in has 30,000.
const maxUnits = 1 << 18

// abbrevsOf returns the table of abbreviations of a unit, and what is behind it. nil: it lies outside of the section.
func abbrevsOf(unit, abbrevs []byte) []byte {
	_, head, wide := unitLength(unit)
	c := headerCursor{b: unit[head:]}
	if c.uint(2) >= 5 {
		c.skip(2) // unit_type, address_size
	}
	size := 4
	if wide {
		size = 8
	}
	offset := c.uint(size)
	if c.failed || offset >= uint64(len(abbrevs)) {
		return nil
	}
	return abbrevs[offset:]
}

// scanAbbrevs goes through a table of abbreviations (DWARF 5, 7.5.3). It returns its length, and whether an entry may refer to one of
// another unit.
func scanAbbrevs(b []byte) (length int, elsewhere bool) {
	c := headerCursor{b: b}
	for c.uleb() != 0 {
		c.uleb() // tag
		c.skip(1)
		for {
			attr, form := c.uleb(), c.uleb()
			if form == formImplicitConst {
				c.skipLEB()
			}
			elsewhere = elsewhere || form == formRefAddr || form == formIndirect
			if attr == 0 && form == 0 {
				break
			}
		}
	}
	return len(b) - len(c.b), elsewhere
}

// checkUnits looks at the units and their tables of abbreviations, which debug/dwarf keeps in memory, each of them from where it begins: a
// hostile file makes many that overlap.
func checkUnits(info, abbrevs []byte) error {
	seen, total, units := map[int]bool{}, 0, 0
	for offset := uint64(0); offset < uint64(len(info)); {
		unit, err := unitAt(info, offset)
		if err != nil {
			return nil //nolint:nilerr // whoever reads it reports it
		}
		if units++; units > maxUnits {
			return fmt.Errorf("it has more than %d units", maxUnits)
		}
		offset += uint64(len(unit))
		table := abbrevsOf(unit, abbrevs)
		if table == nil || seen[len(table)] {
			continue
		}
		seen[len(table)] = true
		length, _ := scanAbbrevs(table)
		if total += length; total > len(abbrevs) {
			return errors.New("its tables of abbreviations overlap")
		}
	}
	return nil
}

// inWhole returns a root as an entry of all of .debug_info: an entry of its unit refers to other units. The compiler does that where it inlined
// functions of one file into another (LTO).
func (f *File) inWhole(info []byte, offset uint64, root *dwarf.Entry) (*dwarf.Data, *dwarf.Entry, error) {
	at := offset + uint64(root.Offset)
	if at > math.MaxUint32 || uint64(len(info)) > math.MaxUint32 {
		return nil, nil, errors.New("its .debug_info is longer than 4 GiB")
	}
	if f.whole == nil {
		d, err := f.dwarfOf(info)
		if err != nil {
			return nil, nil, err
		}
		f.whole = d
	}
	r := f.whole.Reader()
	r.Seek(dwarf.Offset(at))
	root, err := rootAt(r)
	return f.whole, root, err
}

// skipLEB skips a number of any length.
func (c *headerCursor) skipLEB() {
	for c.uint(1)&0x80 != 0 {
	}
}
