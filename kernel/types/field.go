package types

import (
	"fmt"
	"strings"

	"github.com/cilium/ebpf/btf"
)

// Field is the place of a member in a structure.
type Field struct {
	Offset uint64 // bytes from the start of the structure
	Size   uint64 // bytes; of a bit field those of its declared type
	// BitOffset and Bits are for bit fields: the first bit, counted from the lowest bit of the little-endian number at
	// Offset, and the number of bits. Bits is 0 for all other members.
	BitOffset, Bits uint
	// Len is the number of elements of an array, whose elements have Size/Len bytes each. It is 0 for everything else, and
	// for arrays of no declared length.
	Len uint64
}

// Field finds a member: "pid", or through members that are structures or unions themselves "thread.sp". It looks into
// anonymous members as C does. Pointers are not followed. The error says how far the path leads, and matches ErrNotFound if
// a type or member is missing.
func (t *Types) Field(structure, path string) (f Field, err error) {
	defer recoverInto(&err)
	list, err := t.named(structure)
	if err != nil {
		return Field{}, err
	}
	// BTF has several types of a name if compilation units disagree about something in it. They have what is asked for
	// here at the same place, if they have it.
	for _, typ := range list {
		if f, err = fieldIn(typ, structure, path); err == nil {
			return f, nil
		}
	}
	return Field{}, err
}

// Offset is the Offset of a Field.
func (t *Types) Offset(structure, path string) (uint64, error) {
	f, err := t.Field(structure, path)
	return f.Offset, err
}

func fieldIn(typ btf.Type, structure, path string) (Field, error) {
	var found btf.Member
	var bits uint64
	for name := range strings.SplitSeq(path, ".") {
		members, ok := membersOf(typ)
		if !ok {
			return Field{}, fmt.Errorf("%s has no members, so no %s: %w", structure, name, ErrNotFound)
		}
		m, at, ok := find(members, name, map[btf.Type]bool{})
		if !ok || name == "" {
			return Field{}, fmt.Errorf("%s has no member %q: %w", structure, name, ErrNotFound)
		}
		found, bits, typ = m, bits+at, m.Type
		structure += "." + name
	}
	return place(found, bits, structure)
}

// place makes a Field of a member that begins at a bit.
func place(m btf.Member, bits uint64, name string) (Field, error) {
	size, err := sizeOf(m.Type)
	if err != nil {
		return Field{}, fmt.Errorf("size of %s: %w", name, err)
	}
	f := Field{Offset: bits / 8, Size: size, Bits: uint(m.BitfieldSize)}
	if array, ok := btf.As[*btf.Array](m.Type); ok {
		f.Len = uint64(array.Nelems)
	}
	if f.Bits == 0 {
		return f, nil
	}
	if size == 0 || size > 8 || uint64(f.Bits) > 8*size {
		return Field{}, fmt.Errorf("%s has %d bits in a type of %d bytes", name, f.Bits, size)
	}
	f.Offset = bits / 8 / size * size // of the number that the bits are part of
	f.BitOffset = uint(bits - f.Offset*8)
	if uint64(f.BitOffset+f.Bits) > 8*size { // in a packed structure, bits lie in two such numbers
		f.Offset, f.BitOffset = bits/8, uint(bits%8)
	}
	return f, nil
}

func membersOf(typ btf.Type) ([]btf.Member, bool) {
	switch c := btf.UnderlyingType(typ).(type) {
	case *btf.Struct:
		return c.Members, true
	case *btf.Union:
		return c.Members, true
	}
	return nil, false
}

// find returns the member with a name, and the bit where it begins. seen has the anonymous types that do not have it.
func find(members []btf.Member, name string, seen map[btf.Type]bool) (found btf.Member, bits uint64, ok bool) {
	for _, m := range members {
		if m.Name == name {
			return m, uint64(m.Offset), true
		}
		if m.Name != "" || seen[m.Type] {
			continue
		}
		seen[m.Type] = true
		below, _ := membersOf(m.Type)
		if found, bits, ok = find(below, name, seen); ok {
			return found, bits + uint64(m.Offset), true
		}
	}
	return btf.Member{}, 0, false
}
