package kallsyms

import (
	"bytes"
	"encoding/binary"
	"fmt"

	"github.com/corehaul/corehaul/kernel"
	"github.com/corehaul/corehaul/mem"
)

// Limits of a table, far above what kernels have: a distribution's kernel of 6.12 has 158,000 symbols, and 2.2 MB of
// names with their markers.
const (
	maxSymbols    = 1 << 20
	maxNamesSpace = 32 << 20 // bytes from kallsyms_names to kallsyms_token_table
	maxTokenSpace = 1 << 16  // bytes of kallsyms_token_table: its index has 16 bits
	maxNameLen    = 512      // KSYM_NAME_LEN since 6.1; the type counts
)

const (
	tokenCount    = 256
	markerSpacing = 256 // kallsyms_markers has the place of every 256th name
	bigLength     = 0x80
)

// names are the names of all symbols, compressed: each is a sequence of token numbers behind its length. Their text
// begins with the symbol's type.
type names struct {
	tokens [tokenCount]string
	text   []byte   // kallsyms_names
	starts []uint32 // of the length of each name in text; noName if that is lost
	lost   int      // names
	big    bool     // a length with the top bit set has a second byte
}

// readNames reads tokens and names.
func readNames(k *kernel.Kernel, at *places) (*names, error) {
	count, err := k.ReadUint32(at.numSyms)
	if err != nil {
		return nil, fmt.Errorf("kallsyms_num_syms: %w", err)
	}
	if count == 0 || count > maxSymbols {
		return nil, corrupt("kallsyms_num_syms is %d", count)
	}
	n := &names{}
	if n.tokens, err = readTokens(k, at.tokenTable, at.tokenIndex); err != nil {
		return nil, err
	}
	// In every order of the tables, names and markers lie before the tokens.
	space := uint64(at.tokenTable - at.names)
	if at.tokenTable < at.names || space > maxNamesSpace {
		return nil, corrupt("kallsyms_names at %v, but kallsyms_token_table at %v", at.names, at.tokenTable)
	}
	text := make([]byte, space)
	lost, err := k.ReadHoley(text, at.names)
	switch {
	case err != nil:
		err = fmt.Errorf("kallsyms_names: %w", err)
	case len(lost) > 0:
		err = n.splitDamaged(text, lost, int(count))
	default:
		err = n.split(text, at.names, int(count))
	}
	if err != nil {
		return nil, err
	}
	return n, n.checkLengths()
}

// readTokens reads the strings for which the numbers in names stand.
func readTokens(k *kernel.Kernel, table, index mem.VirtAddr) (tokens [tokenCount]string, err error) {
	space := uint64(index - table)
	if index < table || space > maxTokenSpace+8 {
		return tokens, corrupt("kallsyms_token_table at %v, but kallsyms_token_index at %v", table, index)
	}
	b, err := readTable(k, "kallsyms_token_table", table, int(space), 1)
	if err != nil {
		return tokens, err
	}
	places, err := readTable(k, "kallsyms_token_index", index, tokenCount, 2)
	if err != nil {
		return tokens, err
	}
	next := 0
	for i := range tokens {
		if at := int(binary.LittleEndian.Uint16(places[2*i:])); at != next {
			return tokens, corrupt("kallsyms_token_index has token %d at %d, but it is at %d", i, at, next)
		}
		token, _, ok := bytes.Cut(b[next:], []byte{0})
		if !ok {
			return tokens, corrupt("kallsyms_token_table ends in token %d", i)
		}
		tokens[i] = string(token)
		next += len(token) + 1
	}
	return tokens, nil
}

// split finds where each name starts. text begins at va, and the markers are in it. Since 6.1 (73bbb94466fd, "kallsyms:
// support "big" kernel symbols") a length above 127 takes two bytes. Which form it is shows in the markers.
func (n *names) split(text []byte, va mem.VirtAddr, count int) error {
	var failure error
	for _, big := range []bool{true, false} {
		starts, end, err := splitNames(text, count, big)
		if err == nil {
			if err = checkMarkers(text, va, end, starts); err == nil {
				n.text, n.starts, n.big = text[:end:end], starts, big
				return nil
			}
		}
		if failure == nil {
			failure = err
		}
	}
	return failure
}

// splitNames returns where count names start, and where the last one ends.
func splitNames(text []byte, count int, big bool) (starts []uint32, end int, err error) {
	starts = make([]uint32, count)
	for i := range starts {
		starts[i] = uint32(end)
		codes, next, ok := nameAt(text, end, big)
		if !ok {
			return nil, 0, corrupt("kallsyms_names ends in name %d of %d", i, count)
		}
		if len(codes) == 0 {
			return nil, 0, corrupt("kallsyms_names has no name for symbol %d of %d", i, count)
		}
		end = next
	}
	return starts, end, nil
}

// nameAt returns the token numbers of the name at a place in text, and the place of the next name.
func nameAt(text []byte, at int, big bool) (codes []byte, next int, ok bool) {
	if at >= len(text) {
		return nil, 0, false
	}
	length := int(text[at])
	at++
	if big && length >= bigLength {
		if at >= len(text) {
			return nil, 0, false
		}
		length = length&(bigLength-1) | int(text[at])<<7
		at++
	}
	if length > len(text)-at {
		return nil, 0, false
	}
	return text[at : at+length], at + length, true
}

// checkMarkers compares the places of the names with kallsyms_markers, which follows them. Markers are u32, before 4.20
// ("kallsyms: reduce size a little on 64-bit") unsigned longs. Tables are aligned to 8 bytes, since 7.0 to 4.
func checkMarkers(text []byte, va mem.VirtAddr, end int, starts []uint32) error {
	var failure error
	for _, form := range []struct {
		align mem.VirtAddr
		width int
	}{{4, 4}, {8, 4}, {8, 8}} {
		at := int(alignUp(va+mem.VirtAddr(end), form.align) - va) //nolint:gosec // end is a place in text
		err := checkMarkersAt(text[min(at, len(text)):], form.width, starts)
		if err == nil {
			return nil
		}
		if failure == nil {
			failure = err
		}
	}
	return failure
}

func checkMarkersAt(markers []byte, width int, starts []uint32) error {
	for i := 0; i < len(starts); i += markerSpacing {
		if len(markers) < width {
			return corrupt("kallsyms_markers ends before symbol %d of %d", i, len(starts))
		}
		if marker := binary.LittleEndian.Uint32(markers); marker != starts[i] {
			return corrupt("kallsyms_markers has symbol %d of %d at %d, but kallsyms_names at %d", i, len(starts), marker, starts[i])
		}
		markers = markers[width:]
	}
	return nil
}

// checkLengths refuses names that are longer than the kernel's buffers, so that nobody expands one without bounds. It counts those that
// are lost.
func (n *names) checkLengths() error {
	for i, start := range n.starts {
		if start == noName {
			n.lost++
			continue
		}
		length := 0
		for _, code := range n.codes(i) {
			length += len(n.tokens[code])
		}
		if length == 0 || length > maxNameLen {
			return corrupt("the name of symbol %d of %d has %d bytes", i, len(n.starts), length)
		}
	}
	return nil
}

// codes returns the token numbers of a name, none if it is lost.
func (n *names) codes(i int) []byte {
	if n.starts[i] == noName {
		return nil
	}
	codes, _, _ := nameAt(n.text, int(n.starts[i]), n.big)
	return codes
}

// expand appends type and name of a symbol to buf, nothing if they are lost.
func (n *names) expand(buf []byte, i int) []byte {
	for _, code := range n.codes(i) {
		buf = append(buf, n.tokens[code]...)
	}
	return buf
}

// symbol returns type and name of a symbol. It reports false if they are lost.
func (n *names) symbol(i int) (kind byte, name string, ok bool) {
	text := n.expand(make([]byte, 0, maxNameLen), i)
	if len(text) == 0 {
		return 0, "", false
	}
	return text[0], string(text[1:]), true
}
