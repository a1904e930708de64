package types

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
)

// Limits of BTF. Real ones have a fifth: that of Debian's 6.12 cloud kernel has 4.5 MiB, height 20 and a cost of 19 MiB.
const (
	maxBlob   = 24 << 20 // bytes
	maxHeight = 100      // types below a type by value
	maxName   = 4096     // bytes; the kernel's verifier refuses names of KSYM_NAME_LEN (512)
	maxCost   = 96 << 20 // bytes that the decoder takes if all types are asked for
	entryCost = 72       // of a member, parameter or enumerator, beside its name
)

// The kinds of records (include/uapi/linux/btf.h).
const (
	kindPtr       = 2
	kindArray     = 3
	kindStruct    = 4
	kindUnion     = 5
	kindTypedef   = 8
	kindVolatile  = 9
	kindConst     = 10
	kindRestrict  = 11
	kindFunc      = 12
	kindFuncProto = 13
	kindVar       = 14
	kindDatasec   = 15
	kindDeclTag   = 17
	kindTypeTag   = 18
)

// layouts has what follows the 12 bytes of a record of each kind: bytes, and bytes for each of its vlen entries.
var layouts = [20]struct{ fixed, entry int }{
	1: {fixed: 4}, kindArray: {fixed: 12}, kindStruct: {entry: 12}, kindUnion: {entry: 12}, 6: {entry: 8},
	kindFuncProto: {entry: 8}, kindVar: {fixed: 4}, kindDatasec: {entry: 12}, kindDeclTag: {fixed: 4}, 19: {entry: 12},
}

var errCut = errors.New("BTF ends early")

const (
	btfMagic    = 0xeb9f
	headerBytes = 24
	recordBytes = 12
)

// sections returns the types and the names of BTF. Its header (struct btf_header) is, in 24 bytes or more:
//
//	u16 magic; u8 version, flags; u32 hdr_len, type_off, type_len, str_off, str_len
//
// where the offsets count from the header's end.
func sections(blob []byte) (records, names []byte, err error) {
	if len(blob) > maxBlob {
		return nil, nil, fmt.Errorf("BTF of %d bytes exceeds %d", len(blob), maxBlob)
	}
	if len(blob) < headerBytes {
		return nil, nil, errCut
	}
	if magic := binary.LittleEndian.Uint16(blob); magic != btfMagic {
		return nil, nil, fmt.Errorf("BTF begins with %#x, not %#x", magic, btfMagic)
	}
	var at [5]uint64
	for i := range at {
		at[i] = uint64(binary.LittleEndian.Uint32(blob[4+4*i:]))
	}
	body, typeOff, typeLen, strOff, strLen := at[0], at[1], at[2], at[3], at[4]
	end := uint64(len(blob))
	if body < headerBytes || body > end || typeOff+typeLen > end-body || strOff+strLen > end-body {
		return nil, nil, fmt.Errorf("BTF of %d bytes: header %v: %w", end, at, errCut)
	}
	blob = blob[body:]
	if typeOff < strOff+strLen && strOff < typeOff+typeLen && typeLen > 0 && strLen > 0 {
		return nil, nil, fmt.Errorf("BTF: types and names overlap: header %v", at)
	}
	return blob[typeOff : typeOff+typeLen], blob[strOff : strOff+strLen], nil
}

// trim checks a BTF and takes out of it what the decoder must not follow. A type is decoded with everything below it, one
// call for each step, so a long chain of types would exhaust the stack, which no program survives. So each type has a height
// over what it holds by value.
func trim(blob []byte) error {
	records, names, err := sections(blob)
	if err != nil {
		return err
	}
	s := &trimmer{names: names, records: records, at: []uint32{void}}
	for next := 0; next < len(records); {
		n, err := s.record(records[next:])
		if err != nil {
			return fmt.Errorf("BTF: type %d: %w", len(s.at), err)
		}
		s.at = append(s.at, uint32(next))
		next += n
	}
	s.heights = make([]uint8, len(s.at))
	for i := range s.at {
		if _, err := s.height(i, 0); err != nil {
			return err
		}
	}
	return nil
}

type trimmer struct {
	names   []byte
	records []byte
	at      []uint32 // where each type begins in records
	cost    int
	heights []uint8 // 0 when not known yet
}

// void stands for the record of type 0, which has none.
const void = 1<<32 - 1

// record checks and cuts the record at the start of b and returns its length.
func (s *trimmer) record(b []byte) (int, error) {
	if len(b) < recordBytes {
		return 0, errCut
	}
	kind, vlen := info(b)
	if kind == 0 || kind >= len(layouts) {
		return 0, fmt.Errorf("kind %d is not known", kind)
	}
	n := length(kind, vlen)
	if n > len(b) {
		return 0, errCut
	}
	b = b[:n]
	if err := s.count(b, layouts[kind].entry); err != nil {
		return 0, err
	}
	cutReferences(kind, b)
	return n, nil
}

// length returns the bytes of a record of a known kind.
func length(kind, vlen int) int {
	return recordBytes + layouts[kind].fixed + vlen*layouts[kind].entry
}

// count adds the memory that the decoder will take for a record. It copies the name of each entry.
func (s *trimmer) count(b []byte, entryBytes int) error {
	err := s.countName(b)
	for b = b[recordBytes:]; entryBytes > 0 && err == nil && len(b) > 0; b = b[entryBytes:] {
		err = s.countName(b)
	}
	if err == nil && s.cost > maxCost {
		return fmt.Errorf("the types up to here need more than %d bytes", maxCost)
	}
	return err
}

// countName adds what begins with the offset of a name. Entries of a data section begin with a type instead, whose number
// is here taken for one, to no harm.
func (s *trimmer) countName(b []byte) error {
	s.cost += entryCost
	off := uint64(binary.LittleEndian.Uint32(b))
	if off >= uint64(len(s.names)) {
		return nil
	}
	n := bytes.IndexByte(s.names[off:min(off+maxName, uint64(len(s.names)))], 0)
	if n < 0 {
		return fmt.Errorf("name at %d has no end", off)
	}
	s.cost += n
	return nil
}

// info returns kind and vlen of a record: bits 28:24 and 15:0 of its second word.
func info(b []byte) (kind, vlen int) {
	word := binary.LittleEndian.Uint32(b[4:])
	return int(word >> 24 & 0x1f), int(word & 0xffff)
}

// cutReferences lets pointers point to void, functions have no parameters' types, and tags tag nothing.
func cutReferences(kind int, b []byte) {
	switch kind {
	case kindPtr, kindFunc, kindDeclTag:
		clear(b[8:12])
	case kindFuncProto:
		clear(b[8:12])
		for i := recordBytes; i < len(b); i += 8 {
			clear(b[i+4 : i+8])
		}
	}
}

// height returns how many types lie below a type. depth is the number of types above it.
func (s *trimmer) height(id, depth int) (uint8, error) {
	if id >= len(s.at) || s.at[id] == void {
		return 0, nil // void, or a type that is not there: the decoder says so when somebody asks for it
	}
	if s.heights[id] > 0 {
		return s.heights[id], nil
	}
	highest := uint8(0)
	for _, below := range references(s.records[s.at[id]:]) {
		if depth >= maxHeight {
			return 0, fmt.Errorf("BTF: type %d holds itself, or more than %d others in each other", id, maxHeight)
		}
		h, err := s.height(below, depth+1)
		if err != nil {
			return 0, err
		}
		highest = max(highest, h)
	}
	if highest >= maxHeight {
		return 0, fmt.Errorf("BTF: type %d holds more than %d others in each other", id, maxHeight)
	}
	s.heights[id] = highest + 1
	return s.heights[id], nil
}

// references lists the types that the type at the start of b holds by value.
func references(b []byte) []int {
	word := func(at int) int { return int(binary.LittleEndian.Uint32(b[at:])) }
	kind, vlen := info(b)
	b = b[:length(kind, vlen)]
	switch kind {
	case kindTypedef, kindVolatile, kindConst, kindRestrict, kindTypeTag, kindVar:
		return []int{word(8)}
	case kindArray:
		return []int{word(recordBytes), word(recordBytes + 4)}
	case kindStruct, kindUnion:
		return entries(b, 4)
	case kindDatasec:
		return entries(b, 0)
	}
	return nil
}

// entries lists the types in the entries of 12 bytes of a record.
func entries(b []byte, at int) []int {
	list := make([]int, 0, (len(b)-recordBytes)/12)
	for i := recordBytes; i < len(b); i += 12 {
		list = append(list, int(binary.LittleEndian.Uint32(b[i+at:])))
	}
	return list
}
