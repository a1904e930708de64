package kerneltest

import (
	"debug/elf"

	"github.com/corehaul/corehaul/kernel"
	"github.com/corehaul/corehaul/mem"
)

// Where things lie in every machine of this package.
const (
	X86Text   = mem.VirtAddr(0xffffffff81000000)
	X86Direct = mem.VirtAddr(0xffff888000000000)
	ARMText   = mem.VirtAddr(0xffff800008000000)

	imagePhys = mem.PhysAddr(0x1000000)  // the kernel image, 2 MiB aligned
	imageSize = uint64(4 << 20)          // bytes
	rootPhys  = imagePhys + 0x200000     // the top page table, in the image
	tablePhys = mem.PhysAddr(0x10000000) // tables are allocated from here up
	heapPhys  = mem.PhysAddr(0x20000000) // and everything else from here
)

// Machine is a made-up machine: memory, VMCOREINFO and page tables that map the
// kernel image and whatever Map is told to.
type Machine struct {
	Memory
	*Info
	Type     elf.Machine
	Segments []kernel.Segment

	// EntryBits are or'ed into every page table entry (the SME bit, say).
	EntryBits uint64

	levels    int
	text      mem.VirtAddr
	root      mem.PhysAddr
	nextTable mem.PhysAddr
	nextHeap  mem.PhysAddr
	lpa2      bool
}

// NewX86 returns an x86_64 machine with 4 or 5 levels of page tables.
func NewX86(levels int) *Machine {
	m := newMachine(elf.EM_X86_64, levels, X86Text)
	phys := uint64(imagePhys)
	m.Numbers["phys_base"] = int64(phys - uint64(X86Text-0xffffffff80000000))
	if levels == 5 {
		m.Numbers["pgtable_l5_enabled"] = 1
	} else {
		m.Numbers["pgtable_l5_enabled"] = 0
	}
	m.mapImage()
	return m
}

// NewARM64 returns an arm64 machine with pages of 4 KiB that runs with vaBits bits
// of address; with 52 it uses LPA2.
func NewARM64(vaBits int) *Machine {
	levels := (vaBits - 12 + 8) / 9
	m := newMachine(elf.EM_AARCH64, levels, ARMText)
	m.lpa2 = vaBits == 52
	m.Numbers["VA_BITS"] = int64(vaBits)
	m.Numbers["TCR_EL1_T1SZ"] = int64(64 - vaBits)
	m.Numbers["PHYS_OFFSET"] = 0
	if vaBits < 48 { // the image must lie in what the tables can map
		m.text = mem.VirtAddr(^uint64(0)<<vaBits) + 0x8000000
	}
	m.Numbers["kimage_voffset"] = int64(uint64(m.text) - uint64(imagePhys)) //nolint:gosec // a bit pattern
	m.mapImage()
	return m
}

func newMachine(t elf.Machine, levels int, text mem.VirtAddr) *Machine {
	m := &Machine{
		Info: NewInfo(), Type: t, levels: levels, text: text,
		root: rootPhys, nextTable: tablePhys, nextHeap: heapPhys,
	}
	m.Write(m.root, make([]byte, PageSize))
	return m
}

// mapImage maps the kernel image, the top page table in it.
func (m *Machine) mapImage() {
	m.Symbols["swapper_pg_dir"] = uint64(m.ImageAddr(m.root))
	m.Symbols["_stext"] = uint64(m.text)
	m.Map(m.text, imagePhys, imageSize, 21)
}

// ImageAddr returns the virtual address of a physical one in the kernel image.
func (m *Machine) ImageAddr(a mem.PhysAddr) mem.VirtAddr {
	return m.text + mem.VirtAddr(a-imagePhys)
}

// Image returns the address of free space in the kernel image, for variables.
func (m *Machine) Image(offset uint64) mem.VirtAddr {
	return m.text + mem.VirtAddr(offset)
}

// Config returns what describes the machine to kernel.New.
func (m *Machine) Config() kernel.Config {
	return kernel.Config{Memory: &m.Memory, Info: m.Info, Machine: m.Type, PageSize: PageSize, TextSegments: m.Segments}
}

// Map maps size bytes at va to pa with entries of 1<<shift bytes: 12, 21 or 30.
func (m *Machine) Map(va mem.VirtAddr, pa mem.PhysAddr, size uint64, shift uint) {
	for done := uint64(0); done < size; done += 1 << shift {
		m.mapOne(va+mem.VirtAddr(done), pa+mem.PhysAddr(done), shift)
	}
}

func (m *Machine) mapOne(va mem.VirtAddr, pa mem.PhysAddr, shift uint) {
	table := m.root
	for level := m.levels - 1; ; level-- {
		at := table + m.index(va, level)*8
		if bits := uint(12 + 9*level); bits == shift {
			m.Write(at, Uint64(m.leaf(pa, level)))
			return
		}
		table = m.table(at)
	}
}

// index returns the place of va's entry in a table. The top level of arm64 has
// fewer entries than a page holds, which a mask of 9 bits ignores for addresses
// whose upper bits are all set; so the number of bits is the machine's.
func (m *Machine) index(va mem.VirtAddr, level int) mem.PhysAddr {
	bits := uint(9)
	if m.Type == elf.EM_AARCH64 && level == m.levels-1 {
		bits = uint(m.Numbers["VA_BITS"]) - uint(12+9*level) //nolint:gosec // 1 to 9
	}
	return mem.PhysAddr(uint64(va) >> uint(12+9*level) & (1<<bits - 1))
}

// EntryAddr returns where the entry of va at a level (0 is the last) lies.
func (m *Machine) EntryAddr(va mem.VirtAddr, level int) mem.PhysAddr {
	table := m.root
	for l := m.levels - 1; l > level; l-- {
		table = m.table(table + m.index(va, l)*8)
	}
	return table + m.index(va, level)*8
}

// table returns the table that the entry at an address points to, and makes one
// where it points nowhere.
func (m *Machine) table(at mem.PhysAddr) mem.PhysAddr {
	var b [8]byte
	if err := m.ReadPhys(b[:], at); err != nil {
		panic(err)
	}
	if entry := leUint64(b[:]); entry != 0 {
		return mem.PhysAddr(entry & (1<<48 - 1<<12) &^ m.EntryBits)
	}
	next := m.nextTable
	m.nextTable += PageSize
	m.Write(next, make([]byte, PageSize))
	m.Write(at, Uint64(uint64(next)|m.tableBits()))
	return next
}

func (m *Machine) tableBits() uint64 {
	if m.Type == elf.EM_AARCH64 {
		return 3 | m.EntryBits
	}
	return 0x63 | m.EntryBits
}

// leaf returns the entry that maps a page, or at a level above 0 a block, at pa.
func (m *Machine) leaf(pa mem.PhysAddr, level int) uint64 {
	if m.Type != elf.EM_AARCH64 {
		entry := uint64(pa) | 1<<63 | 0x163 | m.EntryBits // NX, global
		if level > 0 {
			entry |= 0x80
		}
		return entry
	}
	entry := uint64(pa)&(1<<50-1) | 0x78<<48&^(3<<50) | 0x401 | m.EntryBits
	if m.lpa2 {
		entry |= uint64(pa) >> 50 << 8
	} else {
		entry |= 3 << 8 // inner shareable
	}
	if level == 0 {
		entry |= 2
	}
	return entry
}

func leUint64(b []byte) uint64 {
	var v uint64
	for i := range 8 {
		v |= uint64(b[i]) << (8 * i)
	}
	return v
}

// Alloc returns size bytes of memory filled with zeros, aligned to 2 MiB.
func (m *Machine) Alloc(size uint64) mem.PhysAddr {
	a := m.nextHeap
	m.nextHeap += mem.PhysAddr((size + 1<<21 - 1) &^ (1<<21 - 1))
	m.Write(a, make([]byte, size))
	return a
}

// WriteVirt stores b at a mapped virtual address.
func (m *Machine) WriteVirt(va mem.VirtAddr, b []byte) {
	k, err := kernel.New(m.Config())
	if err != nil {
		panic(err)
	}
	for len(b) > 0 {
		mapping, err := k.Lookup(va)
		if err != nil {
			panic(err)
		}
		n := min(uint64(len(b)), mapping.Size)
		m.Write(mapping.Phys, b[:n])
		b, va = b[n:], va+mem.VirtAddr(n)
	}
}

// SetUtsname writes an init_uts_ns at va with the name at an offset in it.
func (m *Machine) SetUtsname(va mem.VirtAddr, offset uint64, u kernel.Utsname) {
	m.Symbols["init_uts_ns"] = uint64(va)
	var b [6 * 65]byte
	for i, s := range []string{u.Sysname, u.Nodename, u.Release, u.Version, u.Machine, u.Domainname} {
		copy(b[i*65:(i+1)*65-1], s)
	}
	m.WriteVirt(va+mem.VirtAddr(offset), b[:])
}
