package kallsyms

import (
	"bytes"
	"encoding/binary"
	"fmt"

	"github.com/corehaul/corehaul/kernel"
	"github.com/corehaul/corehaul/mem"
)

// Kernels before 6.0 do not say where their symbol table is. It is in .rodata, behind the code. Its parts are, each
// aligned to 8 bytes: offsets and their base (or addresses), the number of symbols, names, markers, tokens, and their
// index (write_src in scripts/kallsyms.c before 404bad70fcf7, "scripts/kallsyms: change the output order", of 6.4).
// The tokens are found by their contents. All else lies before them.

// digits are the tokens of the digits: every kernel has symbols with all ten, and a character that occurs in names
// stands for itself.
var digits = []byte("0\x001\x002\x003\x004\x005\x006\x007\x008\x009\x00")

const (
	scanSpace  = 256 << 20 // from _stext on: more than code and constants of any kernel
	scanWindow = 1 << 20
	scanGap    = 16 // windows: the image has holes of less than 4 MiB between its sections, so it ends before such a one
	// Hostile memory may look like many tables. A real one is among the first that do: the digits are in some ten tables of
	// character sets too, but no other table has an index of tokens behind it.
	maxCandidates = 64
	maxTokens     = 4
	maxNamesTries = 4 // for each

	tableAlign     = 8
	maxSmallName   = 1 + 127              // length and token numbers, before there were big names
	maxMarkerSpace = maxSymbols / 256 * 8 // bytes
)

// scan finds the tables in the kernel image.
func scan(k *kernel.Kernel) (*places, error) {
	start, ok := k.Info().Symbol("_stext")
	if !ok {
		return nil, fmt.Errorf("%w: VMCOREINFO has neither SYMBOL(kallsyms_names) nor SYMBOL(_stext)", ErrNotFound)
	}
	window := make([]byte, scanWindow+len(digits))
	candidates, tokens, gap := 0, 0, 0
	for offset := uint64(0); offset < scanSpace && gap < scanGap; offset += scanWindow {
		va := mem.VirtAddr(start + offset)
		if gap++; someOf(k, window, va) {
			gap = 0
		}
		for at := range occurrences(window, digits) {
			found := &places{}
			if found.findTokens(k, va+mem.VirtAddr(at)) { //nolint:gosec // at is a place in window
				if found.findNames(k, 4) || found.findNames(k, 8) {
					return found, nil
				}
				tokens++
			}
			if candidates++; candidates == maxCandidates || tokens == maxTokens {
				return nil, fmt.Errorf("%w: %d places look like kallsyms_token_table, but none has names", ErrNotFound, candidates)
			}
		}
	}
	return nil, fmt.Errorf("%w: VMCOREINFO has no SYMBOL(kallsyms_names), and the kernel image has no table as of kernels before 6.0", ErrNotFound)
}

// someOf reads what can be read at va, with zeros in the place of the rest. It reports whether there was a page.
func someOf(k *kernel.Kernel, p []byte, va mem.VirtAddr) bool {
	_, err := k.ReadHoley(p, va)
	return err == nil
}

// occurrences yields the places of sep in b.
func occurrences(b, sep []byte) func(yield func(int) bool) {
	return func(yield func(int) bool) {
		for from := 0; ; {
			at := bytes.Index(b[from:], sep)
			if at < 0 || !yield(from+at) {
				return
			}
			from += at + 1
		}
	}
}

// findTokens finds the index behind the tokens, whose token of the digit 0 is at va. It says how far from their start the digit 0 is.
func (at *places) findTokens(k *kernel.Kernel, va mem.VirtAddr) bool {
	b := make([]byte, maxTokenSpace)
	someOf(k, b, va)
	end := 0
	for range tokenCount - '0' {
		n := bytes.IndexByte(b[end:], 0)
		if n < 0 {
			return false
		}
		end += n + 1
	}
	at.tokenIndex = alignUp(va+mem.VirtAddr(end), tableAlign)
	var index [2 * tokenCount]byte
	if k.ReadVirt(index[:], at.tokenIndex) != nil {
		return false
	}
	at.tokenTable = va - mem.VirtAddr(binary.LittleEndian.Uint16(index[2*'0':]))
	_, err := readTokens(k, at.tokenTable, at.tokenIndex)
	return err == nil
}

// findNames finds the names, with markers of a width between them and the tokens. The last marker says about how far
// before the markers the names start, and their number lies right before them.
func (at *places) findNames(k *kernel.Kernel, width int) bool {
	markers, count, last, ok := at.findMarkers(k, width)
	if !ok {
		return false
	}
	longest := alignUp(uint64(last)+markerSpacing*maxSmallName+2*tableAlign, tableAlign)
	b := make([]byte, longest)
	first := markers - mem.VirtAddr(longest)
	lost, _ := k.ReadHoley(b, first)
	tries := 0
	for names := tableAlign; names < len(b)-int(last); names += tableAlign {
		n := int(binary.LittleEndian.Uint32(b[names-tableAlign:]))
		if n <= (count-1)*markerSpacing || n > count*markerSpacing {
			continue
		}
		if tries++; tries > maxNamesTries {
			return false
		}
		if hasNames(k, b[names:], lost.From(names), markers, width, n) {
			at.setNames(first+mem.VirtAddr(names), n)
			return true
		}
	}
	return false
}

// hasNames reports whether b has the names of n symbols up to the markers, which have a width.
func hasNames(k *kernel.Kernel, b []byte, lost kernel.Holes, markers mem.VirtAddr, width, n int) bool {
	if len(lost) == 0 {
		_, end, err := splitNames(b, n, false)
		return err == nil && alignUp(end, tableAlign) == len(b)
	}
	table := make([]byte, blocks(n)*width)
	lostMarkers, _ := k.ReadHoley(table, markers)
	_, proved, err := splitBlocks(b, lost, readMarkers(table, lostMarkers, 0, width, n), n, false)
	return err == nil && proved > 0
}

// setNames sets the places of all tables before the names of n symbols.
func (at *places) setNames(names mem.VirtAddr, n int) {
	at.names, at.numSyms = names, names-tableAlign
	at.relativeBase = at.numSyms - tableAlign
	at.offsets = at.relativeBase - mem.VirtAddr(alignUp(4*n, tableAlign)) //nolint:gosec // n is at most maxSymbols
	at.addresses = at.numSyms - mem.VirtAddr(8*n)                         //nolint:gosec // the same
}

// findMarkers returns where the markers start, how many there are, and the last one. They ascend from 0, and end at the
// tokens or 4 zero bytes before them.
func (at *places) findMarkers(k *kernel.Kernel, width int) (start mem.VirtAddr, count int, last uint32, ok bool) {
	b := make([]byte, maxMarkerSpace)
	someOf(k, b, at.tokenTable-maxMarkerSpace)
	marker := func(end int) uint32 { return binary.LittleEndian.Uint32(b[end-width:]) }
	end := len(b)
	if width == 4 && marker(end) == 0 {
		end -= width
	}
	last = marker(end)
	if last > maxNamesSpace {
		return 0, 0, 0, false
	}
	for next := last; ; {
		end -= width
		count++
		if next == 0 {
			return at.tokenTable - mem.VirtAddr(len(b)-end), count, last, end%tableAlign == 0 //nolint:gosec // end is a place in b
		}
		if end < width || marker(end) >= next {
			return 0, 0, 0, false
		}
		next = marker(end)
	}
}
