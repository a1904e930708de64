// Package typestest generates kernels with types: memory in which structures lie, their BTF, and symbols. It is for tests
// only: its kernels are small, and it panics on misuse.
package typestest

import (
	"encoding/binary"
	"fmt"

	"github.com/cilium/ebpf/btf"

	"github.com/corehaul/corehaul/kernel"
	"github.com/corehaul/corehaul/kernel/kerneltest"
	"github.com/corehaul/corehaul/kernel/types"
	"github.com/corehaul/corehaul/mem"
)

// Types of members.
var (
	Int     = &btf.Int{Name: "int", Size: 4, Encoding: btf.Signed}
	Long    = &btf.Int{Name: "unsigned long", Size: 8}
	Pointer = &btf.Pointer{Target: &btf.Void{}}
	char    = &btf.Int{Name: "char", Size: 1}

	// List is struct list_head.
	List = Struct("list_head", Member{"next", Pointer}, Member{"prev", Pointer})
)

// Text is an array of n characters.
func Text(n uint32) btf.Type { return Array(char, n) }

// Array is an array of n elements.
func Array(elem btf.Type, n uint32) btf.Type { return &btf.Array{Index: Int, Type: elem, Nelems: n} }

// Member is a member of a structure, an anonymous one without a name.
type Member struct {
	Name string
	Type btf.Type
}

// Struct is a structure whose members each begin at the next multiple of 8 bytes.
func Struct(name string, members ...Member) *btf.Struct {
	s := &btf.Struct{Name: name}
	for _, m := range members {
		s.Members = append(s.Members, btf.Member{Name: m.Name, Type: m.Type, Offset: btf.Bits(8 * s.Size)})
		n, err := btf.Sizeof(m.Type)
		if err != nil {
			panic(err)
		}
		s.Size += uint32(n+7) &^ 7
	}
	return s
}

// Blob returns the BTF of types.
func Blob(list ...btf.Type) []byte {
	b, err := btf.NewBuilder(list, nil)
	if err != nil {
		panic(err)
	}
	raw, err := b.Marshal(nil, &btf.MarshalOptions{Order: binary.LittleEndian})
	if err != nil {
		panic(err)
	}
	return raw
}

// Kernel is a generated kernel.
type Kernel struct {
	*kerneltest.Machine
	Types *types.Types
	Names Symbols
	next  uint64 // offset of free space in the image
}

// Symbols has the addresses of a kernel's symbols. It implements types.Symbols.
type Symbols map[string]mem.VirtAddr

// Address returns the address of a symbol.
func (s Symbols) Address(name string) (mem.VirtAddr, bool) { a, ok := s[name]; return a, ok }

// The part of the image for structures. The page tables lie behind it.
const (
	firstFree = 0x10000
	endFree   = 0x1f0000
)

// New returns an x86_64 kernel with types.
func New(list ...btf.Type) *Kernel {
	known, err := types.Parse(Blob(list...))
	if err != nil {
		panic(err)
	}
	return &Kernel{Machine: kerneltest.NewX86(4), Types: known, Names: Symbols{}, next: firstFree}
}

// Open returns the kernel that reads the memory.
func (k *Kernel) Open() *kernel.Kernel {
	opened, err := kernel.New(k.Config())
	if err != nil {
		panic(err)
	}
	return opened
}

// Space returns n bytes of zeros, page-aligned from one page on.
func (k *Kernel) Space(n uint64) mem.VirtAddr {
	if n >= kerneltest.PageSize {
		k.next = (k.next + kerneltest.PageSize - 1) &^ (kerneltest.PageSize - 1)
	}
	at := k.Image(k.next)
	k.next += (n + 15) &^ 15
	if k.next > endFree {
		panic("the image is full")
	}
	k.WriteVirt(at, make([]byte, n))
	return at
}

// Make returns space for a structure, all of whose members are zero.
func (k *Kernel) Make(structure string) mem.VirtAddr {
	n, err := k.Types.Size(structure)
	if err != nil {
		panic(err)
	}
	return k.Space(n)
}

// Variable returns space of n bytes with a symbol.
func (k *Kernel) Variable(name string, n uint64) mem.VirtAddr {
	k.Names[name] = k.Space(n)
	return k.Names[name]
}

// Member returns the address of a member of the structure at an address.
func (k *Kernel) Member(at mem.VirtAddr, structure, path string) mem.VirtAddr {
	offset, err := k.Types.Offset(structure, path)
	if err != nil {
		panic(err)
	}
	return at + mem.VirtAddr(offset)
}

// Set stores a number or a pointer in a member of 4 or 8 bytes.
func (k *Kernel) Set(at mem.VirtAddr, structure, path string, value uint64) {
	f, err := k.Types.Field(structure, path)
	if err != nil || f.Size != 4 && f.Size != 8 {
		panic(fmt.Sprintf("%s.%s: %+v, %v", structure, path, f, err))
	}
	k.WriteVirt(at+mem.VirtAddr(f.Offset), kerneltest.Uint64(value)[:f.Size])
}

// SetText stores characters and a NUL in a member.
func (k *Kernel) SetText(at mem.VirtAddr, structure, path, text string) {
	k.WriteVirt(k.Member(at, structure, path), append([]byte(text), 0))
}

// Link makes a list of the list_heads at addresses, of which the first is the head.
func (k *Kernel) Link(nodes ...mem.VirtAddr) {
	for i, at := range nodes {
		next := nodes[(i+1)%len(nodes)]
		k.WriteVirt(at, kerneltest.Uint64(uint64(next)))
		k.WriteVirt(next+8, kerneltest.Uint64(uint64(at)))
	}
}
