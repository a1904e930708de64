package types

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/corehaul/corehaul/kernel"
	"github.com/corehaul/corehaul/mem"
)

// maxView bounds the bytes from the first to the last member of a View: no structure that the kernel puts on a list has
// more without the members that end it (a struct task_struct has 10 KiB).
const maxView = 64 << 10

// View reads some members of a structure at once. It is safe for concurrent use.
type View struct {
	structure  string
	fields     map[string]Field
	start, end uint64 // the bytes that hold all members
}

// View prepares to read members, which are paths as those of Field. Kernels may lack the optional ones: Has tells.
func (t *Types) View(structure string, members []string, optional ...string) (*View, error) {
	v := &View{structure: structure, fields: map[string]Field{}, start: maxView}
	for _, path := range members {
		if err := v.add(t, path); err != nil {
			return nil, err
		}
	}
	for _, path := range optional {
		if err := v.add(t, path); err != nil && !errors.Is(err, ErrNotFound) {
			return nil, err
		}
	}
	if v.start >= v.end {
		return nil, fmt.Errorf("struct %s has none of the members %q: %w", structure, optional, ErrNotFound)
	}
	return v, nil
}

func (v *View) add(t *Types, path string) error {
	f, err := t.Field(v.structure, path)
	if err != nil {
		return err
	}
	if f.Offset > maxView || f.Size > maxView-f.Offset {
		return fmt.Errorf("%s.%s is %d bytes at %d, beyond %d", v.structure, path, f.Size, f.Offset, maxView)
	}
	v.fields[path] = f
	v.start = min(v.start, f.Offset)
	v.end = max(v.end, f.Offset+f.Size)
	return nil
}

// Has reports whether the structure of this kernel has a member.
func (v *View) Has(path string) bool { _, ok := v.fields[path]; return ok }

// Field returns the place of a member, the zero Field if the structure has none.
func (v *View) Field(path string) Field { return v.fields[path] }

// Read reads the members of the structure at an address.
func (v *View) Read(k *kernel.Kernel, at mem.VirtAddr) (Record, error) {
	b := make([]byte, v.end-v.start)
	if err := k.ReadVirt(b, at+mem.VirtAddr(v.start)); err != nil {
		return Record{}, fmt.Errorf("struct %s at %v: %w", v.structure, at, err)
	}
	return Record{fields: v.fields, start: v.start, at: at, b: b}, nil
}

// Record has the members of one structure in memory. Asked for a member that its View lacks, it gives zero, as the zero
// Record does.
type Record struct {
	fields map[string]Field
	start  uint64
	at     mem.VirtAddr
	b      []byte
}

// Bytes returns the bytes of a member. The caller must not change them.
func (r Record) Bytes(path string) []byte {
	f, ok := r.fields[path]
	if !ok {
		return nil
	}
	at := f.Offset - r.start
	return r.b[at : at+f.Size]
}

// Uint returns a member as an unsigned number; of a member larger than 8 bytes the first 8. Of a signed member narrower
// than that it does not extend the sign.
func (r Record) Uint(path string) uint64 {
	var b [8]byte
	copy(b[:], r.Bytes(path))
	value := binary.LittleEndian.Uint64(b[:])
	if f := r.fields[path]; f.Bits > 0 {
		value = value >> f.BitOffset & (1<<f.Bits - 1)
	}
	return value
}

// Pointer returns a member that is a pointer.
func (r Record) Pointer(path string) mem.VirtAddr { return mem.VirtAddr(r.Uint(path)) }

// Addr returns the address of a member, that of the structure if it has no such member.
func (r Record) Addr(path string) mem.VirtAddr {
	return r.at + mem.VirtAddr(r.fields[path].Offset)
}

// Text returns a member that is an array of characters, up to its first NUL.
func (r Record) Text(path string) string {
	b := r.Bytes(path)
	for i, c := range b {
		if c == 0 {
			return string(b[:i])
		}
	}
	return string(b)
}
