// Package kerneltest generates the memory of kernels for tests: physical memory, page
// tables, sections of struct pages and logs, each by the rules of the kernel code that
// writes them. It is for tests only: its machines are small, and it panics on misuse.
// Nothing in it is safe for concurrent writing.
package kerneltest

import (
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"strconv"
	"strings"

	"github.com/corehaul/corehaul/mem"
)

// PageSize is the page size of all machines except those of NewARM64Pages. Memory is added and removed in units of it.
const PageSize = 4096

// ErrNoMemory is the error of reading memory that was never written.
var ErrNoMemory = errors.New("no such memory")

// Memory is sparse physical memory. Reading what was never written fails.
type Memory struct {
	pages map[mem.PFN]*[PageSize]byte
}

// ReadPhys fills p from address a on.
func (m *Memory) ReadPhys(p []byte, a mem.PhysAddr) error {
	for len(p) > 0 {
		page, ok := m.pages[a.PFN(12)]
		if !ok {
			return fmt.Errorf("address %v: %w", a, ErrNoMemory)
		}
		n := copy(p, page[a%PageSize:])
		p, a = p[n:], a+mem.PhysAddr(n)
	}
	return nil
}

// Write stores b at address a. It adds memory if there is none.
func (m *Memory) Write(a mem.PhysAddr, b []byte) {
	if m.pages == nil {
		m.pages = map[mem.PFN]*[PageSize]byte{}
	}
	for len(b) > 0 {
		page, ok := m.pages[a.PFN(12)]
		if !ok {
			page = new([PageSize]byte)
			m.pages[a.PFN(12)] = page
		}
		n := copy(page[a%PageSize:], b)
		b, a = b[n:], a+mem.PhysAddr(n)
	}
}

// Remove removes the page with address a.
func (m *Memory) Remove(a mem.PhysAddr) { delete(m.pages, a.PFN(12)) }

// Info is a VMCOREINFO. It implements kernel.VMCoreInfo.
type Info struct {
	Symbols, Sizes, Offsets, Lengths map[string]uint64
	Numbers                          map[string]int64
	Strings                          map[string]string
}

// NewInfo returns an empty Info.
func NewInfo() *Info {
	return &Info{
		Symbols: map[string]uint64{}, Sizes: map[string]uint64{}, Offsets: map[string]uint64{},
		Lengths: map[string]uint64{}, Numbers: map[string]int64{}, Strings: map[string]string{},
	}
}

// Clone returns an independent copy.
func (i *Info) Clone() *Info {
	return &Info{
		Symbols: maps.Clone(i.Symbols), Sizes: maps.Clone(i.Sizes), Offsets: maps.Clone(i.Offsets),
		Lengths: maps.Clone(i.Lengths), Numbers: maps.Clone(i.Numbers), Strings: maps.Clone(i.Strings),
	}
}

// Symbol returns SYMBOL(name).
func (i *Info) Symbol(name string) (uint64, bool) { v, ok := i.Symbols[name]; return v, ok }

// Size returns SIZE(name).
func (i *Info) Size(name string) (uint64, bool) { v, ok := i.Sizes[name]; return v, ok }

// Offset returns OFFSET(name).
func (i *Info) Offset(name string) (uint64, bool) { v, ok := i.Offsets[name]; return v, ok }

// Length returns LENGTH(name).
func (i *Info) Length(name string) (uint64, bool) { v, ok := i.Lengths[name]; return v, ok }

// Number returns NUMBER(name).
func (i *Info) Number(name string) (int64, bool) { v, ok := i.Numbers[name]; return v, ok }

// String returns the value of any other key.
func (i *Info) String(key string) (string, bool) { v, ok := i.Strings[key]; return v, ok }

// Uint64 returns v in little-endian byte order.
func Uint64(v uint64) []byte { return binary.LittleEndian.AppendUint64(nil, v) }

// Uint32 is Uint64 for 32 bits.
func Uint32(v uint32) []byte { return binary.LittleEndian.AppendUint32(nil, v) }

// ParseInfo reads an Info from the text of a VMCOREINFO note.
func ParseInfo(text string) (*Info, error) {
	i := NewInfo()
	for line := range strings.Lines(text) {
		key, value, ok := strings.Cut(strings.TrimSpace(line), "=")
		if !ok {
			return nil, fmt.Errorf("no value in %q", line)
		}
		kind, name, ok := strings.Cut(strings.TrimSuffix(key, ")"), "(")
		if !ok {
			i.Strings[key] = value
			continue
		}
		if err := i.set(kind, name, value); err != nil {
			return nil, err
		}
	}
	return i, nil
}

func (i *Info) set(kind, name, value string) error {
	var err error
	switch kind {
	case "SYMBOL":
		i.Symbols[name], err = strconv.ParseUint(value, 16, 64)
	case "SIZE":
		i.Sizes[name], err = strconv.ParseUint(value, 10, 64)
	case "OFFSET":
		i.Offsets[name], err = strconv.ParseUint(value, 10, 64)
	case "LENGTH":
		i.Lengths[name], err = strconv.ParseUint(value, 10, 64)
	case "NUMBER":
		i.Numbers[name], err = strconv.ParseInt(value, 0, 64)
	default:
		err = fmt.Errorf("kind of key %s(%s) not known", kind, name)
	}
	return err
}

// Add adds the keys of another Info.
func (i *Info) Add(other *Info) {
	maps.Copy(i.Symbols, other.Symbols)
	maps.Copy(i.Sizes, other.Sizes)
	maps.Copy(i.Offsets, other.Offsets)
	maps.Copy(i.Lengths, other.Lengths)
	maps.Copy(i.Numbers, other.Numbers)
	maps.Copy(i.Strings, other.Strings)
}
