package kernel

import (
	"encoding/binary"
	"errors"
	"fmt"
	"sync"

	"github.com/corehaul/corehaul/mem"
)

// FaultError says why a virtual address could not be translated or read.
type FaultError struct {
	Addr  mem.VirtAddr // the requested address
	Entry mem.PhysAddr // address of the faulty page table entry, 0 for none
	Level int          // its level: 0 is the last one, -1 for none
	Err   error        // ErrNotMapped, ErrNoPageTables or the PhysReader's error
}

func (e *FaultError) Error() string {
	if e.Level < 0 {
		return fmt.Sprintf("virtual address %v: %v", e.Addr, e.Err)
	}
	return fmt.Sprintf("virtual address %v: level %d page table entry at %v: %v", e.Addr, e.Level, e.Entry, e.Err)
}

func (e *FaultError) Unwrap() error { return e.Err }

const (
	entrySize    = 8       // bytes of a page table entry on both architectures
	entryShift   = 3       // its binary logarithm
	pieceSize    = 4 << 10 // bytes of page tables that are read at once, whatever a table has
	cachedPieces = 128     // of those are kept: 512 KiB
)

// entryKind is the meaning of a page table entry.
type entryKind int

const (
	entryAbsent entryKind = iota
	entryTable
	entryPage // a page or a larger block
)

// paging is a set of kernel page tables. A table fills a page of 1<<shift bytes, so each level translates shift-3
// bits of an address.
type paging struct {
	memory  PhysReader
	root    mem.PhysAddr
	shift   uint         // log2 of the page size, that of the granule in arm64's words
	levels  int          // 2 to 5
	topBits uint         // address bits that the root table translates
	lowest  mem.VirtAddr // the lowest address of the kernel
	// decode returns kind and output address of the entry at a level. For blocks, the address bits below the block's
	// size may be set.
	decode func(entry uint64, level int) (entryKind, uint64)

	mu    sync.Mutex
	cache [cachedPieces]*tablePiece // by address, direct mapped
}

// tablePiece is a piece of memory that holds page tables.
type tablePiece struct {
	addr mem.PhysAddr
	data [pieceSize]byte
}

// levelBits returns how many bits of an address a table below the root translates.
func (g *paging) levelBits() uint { return g.shift - entryShift }

// levelShift returns the lowest of the address bits that a table at a level translates.
func (g *paging) levelShift(level int) uint {
	return g.shift + g.levelBits()*uint(level)
}

// walk returns the mapping of va, from va to its end.
func (g *paging) walk(va mem.VirtAddr) (Mapping, error) {
	if va < g.lowest {
		return Mapping{}, &FaultError{Addr: va, Level: -1, Err: ErrNotMapped}
	}
	table := uint64(g.root)
	for level := g.levels - 1; level >= 0; level-- {
		shift, width := g.levelShift(level), g.levelBits()
		if level == g.levels-1 {
			width = g.topBits
		}
		index := uint64(va) >> shift & (1<<width - 1)
		at := mem.PhysAddr(table + index*entrySize)
		entry, err := g.entry(at)
		if err != nil {
			return Mapping{}, &FaultError{Addr: va, Entry: at, Level: level, Err: err}
		}
		kind, out := g.decode(entry, level)
		switch kind {
		case entryTable:
			table = out
		case entryPage:
			size := uint64(1) << shift
			offset := uint64(va) & (size - 1)
			return Mapping{Phys: mem.PhysAddr(out&^(size-1) | offset), Size: size - offset}, nil
		case entryAbsent:
			return Mapping{}, &FaultError{Addr: va, Entry: at, Level: level, Err: ErrNotMapped}
		}
	}
	// A table entry at the last level, which neither decode function answers.
	return Mapping{}, &FaultError{Addr: va, Level: -1, Err: ErrNotMapped}
}

// entry returns the page table entry at physical address a.
func (g *paging) entry(a mem.PhysAddr) (uint64, error) {
	piece, offset := a&^(pieceSize-1), a&(pieceSize-1)
	if offset > pieceSize-entrySize { // only where VMCOREINFO gave an odd root
		return 0, ErrNotMapped
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	slot := &g.cache[piece/pieceSize%cachedPieces]
	if *slot == nil || (*slot).addr != piece {
		fresh := new(tablePiece)
		fresh.addr = piece
		if err := g.memory.ReadPhys(fresh.data[:], piece); err != nil {
			return 0, err
		}
		*slot = fresh
	}
	return binary.LittleEndian.Uint64((*slot).data[offset:]), nil
}

// choosePageTables takes the first page tables that map the symbol of their root to the root itself: no other memory does. If
// there are none, it takes tables that lead to a page that the dump lacks, else the first that can be read, and
// warns. It returns the index of the tables, or -1.
func (k *Kernel) choosePageTables(symbol mem.VirtAddr, tables []*paging) int {
	readable, cut := -1, false
	for i, g := range tables {
		m, err := g.walk(symbol)
		if err == nil && m.Phys == g.root {
			k.paging, k.verified = g, true
			return i
		}
		if _, rootErr := g.entry(g.root); rootErr == nil && (readable < 0 || isReadFault(err) && !cut) {
			readable, cut = i, isReadFault(err)
		}
	}
	if readable < 0 {
		k.warnf("the page tables of SYMBOL(swapper_pg_dir)=%v cannot be read: addresses cannot be translated", symbol)
		return -1
	}
	k.paging = tables[readable]
	k.warnf("the page tables at %v do not map themselves: translations may be wrong", k.paging.root)
	return readable
}

// rootSymbol returns the virtual address of the kernel's top page table.
func (k *Kernel) rootSymbol(names ...string) (mem.VirtAddr, bool) {
	for _, name := range names {
		if va, ok := k.cfg.Info.Symbol(name); ok && va != 0 {
			return mem.VirtAddr(va), true
		}
	}
	k.warnf("VMCOREINFO has no SYMBOL(%s): addresses cannot be translated", names[0])
	return 0, false
}

// isReadFault reports whether err says that a page table could not be read, and not that the address is not mapped.
func isReadFault(err error) bool { return err != nil && !errors.Is(err, ErrNotMapped) }
