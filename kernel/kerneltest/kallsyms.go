package kerneltest

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"slices"

	"github.com/corehaul/corehaul/mem"
)

// KernelSymbol is a symbol of a generated kernel image.
type KernelSymbol struct {
	Name string
	Addr mem.VirtAddr
	Type byte // as nm(1) has it
}

// KallsymsEncoding is the way in which a symbol table has addresses.
type KallsymsEncoding int

// All encodings of addresses since 4.6.
const (
	KallsymsAbsolute       KallsymsEncoding = iota // kallsyms_addresses
	KallsymsBaseRelative                           // kallsyms_offsets from kallsyms_relative_base
	KallsymsAbsolutePercpu                         // the same, negative; positive offsets are addresses
	KallsymsPlaceRelative                          // kallsyms_offsets from their own places
)

// KallsymsForm says which kernel's scripts/kallsyms.c writes a table. The zero value is that of 4.6.
type KallsymsForm struct {
	Encoding      KallsymsEncoding
	NarrowMarkers bool // since 4.20 markers have 4 bytes, not 8
	BigLengths    bool // since 6.1 lengths above 127 take two bytes
	AddressesLast bool // since 6.4 addresses follow the tokens
	InVMCoreInfo  bool // since 6.0 VMCOREINFO has the symbols of the tables
	Align         int  // bytes: 4 since 7.0; 0 means 8
}

// KallsymsForms are the forms of the kernels that changed something.
func KallsymsForms() map[string]KallsymsForm {
	return map[string]KallsymsForm{
		"4.18":                {Encoding: KallsymsAbsolutePercpu},
		"5.10":                {Encoding: KallsymsAbsolutePercpu, NarrowMarkers: true},
		"5.10, base-relative": {Encoding: KallsymsBaseRelative, NarrowMarkers: true},
		"5.10, absolute":      {Encoding: KallsymsAbsolute, NarrowMarkers: true},
		"6.0":                 {Encoding: KallsymsAbsolutePercpu, NarrowMarkers: true, InVMCoreInfo: true},
		"6.1":                 {Encoding: KallsymsAbsolutePercpu, NarrowMarkers: true, InVMCoreInfo: true, BigLengths: true},
		"6.1, base-relative":  {Encoding: KallsymsBaseRelative, NarrowMarkers: true, InVMCoreInfo: true, BigLengths: true},
		"6.1, absolute":       {Encoding: KallsymsAbsolute, NarrowMarkers: true, InVMCoreInfo: true, BigLengths: true},
		"6.12":                {Encoding: KallsymsAbsolutePercpu, NarrowMarkers: true, InVMCoreInfo: true, BigLengths: true, AddressesLast: true},
		"6.15, base-relative": {Encoding: KallsymsBaseRelative, NarrowMarkers: true, InVMCoreInfo: true, BigLengths: true, AddressesLast: true},
		"7.0, place-relative": {Encoding: KallsymsPlaceRelative, NarrowMarkers: true, InVMCoreInfo: true, BigLengths: true, AddressesLast: true, Align: 4},
	}
}

// SetKallsyms writes the symbol table of a form at va. The symbols are sorted by address first.
func (m *Machine) SetKallsyms(va mem.VirtAddr, form KallsymsForm, symbols []KernelSymbol) {
	symbols = slices.Clone(symbols)
	slices.SortStableFunc(symbols, func(a, b KernelSymbol) int { return cmp.Compare(a.Addr, b.Addr) })
	w := &kallsymsWriter{KallsymsForm: form, va: va, symbols: symbols, labels: map[string]uint64{}}
	if w.Align == 0 {
		w.Align = 8
	}
	if !form.AddressesLast {
		w.writeAddresses()
	}
	w.label("kallsyms_num_syms")
	w.out = binary.LittleEndian.AppendUint32(w.out, uint32(len(symbols)))
	w.writeNames()
	if form.AddressesLast {
		w.writeAddresses()
	}
	m.WriteVirt(va, w.out)
	if form.InVMCoreInfo {
		for name, at := range w.labels {
			m.Symbols[name] = at
		}
	}
}

// kallsymsWriter writes what write_src in scripts/kallsyms.c has the assembler write.
type kallsymsWriter struct {
	KallsymsForm
	va      mem.VirtAddr
	symbols []KernelSymbol
	out     []byte
	labels  map[string]uint64
}

func (w *kallsymsWriter) label(name string) {
	for (int(w.va)+len(w.out))%w.Align != 0 {
		w.out = append(w.out, 0)
	}
	w.labels[name] = uint64(w.va) + uint64(len(w.out))
}

func (w *kallsymsWriter) writeAddresses() {
	if w.Encoding == KallsymsAbsolute {
		w.label("kallsyms_addresses")
		for _, s := range w.symbols {
			w.out = append(w.out, Uint64(uint64(s.Addr))...)
		}
		return
	}
	base := w.base()
	w.label("kallsyms_offsets")
	for _, s := range w.symbols {
		place := w.va + mem.VirtAddr(len(w.out))
		w.out = append(w.out, Uint32(w.offset(s.Addr, base, place))...)
	}
	if w.Encoding != KallsymsPlaceRelative {
		w.label("kallsyms_relative_base")
		w.out = append(w.out, Uint64(uint64(base))...)
	}
}

// base returns the lowest address that is relative. Per-CPU symbols of x86_64 are small numbers.
func (w *kallsymsWriter) base() mem.VirtAddr {
	for _, s := range w.symbols {
		if w.Encoding != KallsymsAbsolutePercpu || !isSmall(s.Addr) {
			return s.Addr
		}
	}
	return 0
}

func isSmall(a mem.VirtAddr) bool { return a < 1<<31 }

func (w *kallsymsWriter) offset(a, base, place mem.VirtAddr) uint32 {
	switch {
	case w.Encoding == KallsymsPlaceRelative:
		return uint32(a - place)
	case w.Encoding == KallsymsBaseRelative:
		return uint32(a - base)
	case isSmall(a):
		return uint32(a)
	default:
		return uint32(base - a - 1)
	}
}

// writeNames writes names, markers, tokens and their index.
func (w *kallsymsWriter) writeNames() {
	tokens := kallsymsTokens(w.symbols)
	w.label("kallsyms_names")
	start := len(w.out)
	var markers []int
	for i, s := range w.symbols {
		if i%256 == 0 {
			markers = append(markers, len(w.out)-start)
		}
		codes := kallsymsCompress(string(s.Type)+s.Name, tokens)
		switch {
		case len(codes) < 128 || !w.BigLengths && len(codes) < 256:
			w.out = append(w.out, byte(len(codes)))
		case w.BigLengths && len(codes) < 1<<14:
			w.out = append(w.out, byte(len(codes))|0x80, byte(len(codes)>>7))
		default:
			panic(fmt.Sprintf("the name %s is too long", s.Name))
		}
		w.out = append(w.out, codes...)
	}
	w.label("kallsyms_markers")
	for _, at := range markers {
		if w.NarrowMarkers {
			w.out = append(w.out, Uint32(uint32(at))...)
		} else {
			w.out = append(w.out, Uint64(uint64(at))...)
		}
	}
	w.label("kallsyms_token_table")
	start = len(w.out)
	var index []byte
	for _, token := range tokens {
		index = binary.LittleEndian.AppendUint16(index, uint16(len(w.out)-start))
		w.out = append(append(w.out, token...), 0)
	}
	w.label("kallsyms_token_index")
	w.out = append(w.out, index...)
}

// kallsymsTokens returns what the codes of names stand for: for themselves if names contain them, otherwise for pairs
// of characters while there are any.
func kallsymsTokens(symbols []KernelSymbol) (tokens [256]string) {
	for c := '0'; c <= '9'; c++ {
		tokens[c] = string(c)
	}
	var pairs []string
	for _, s := range symbols {
		tokens[s.Type] = string(s.Type)
		for i := range len(s.Name) {
			tokens[s.Name[i]] = s.Name[i : i+1]
			if i > 0 && !slices.Contains(pairs, s.Name[i-1:i+1]) {
				pairs = append(pairs, s.Name[i-1:i+1])
			}
		}
	}
	for code := range tokens {
		if tokens[code] == "" && len(pairs) > 0 {
			tokens[code], pairs = pairs[0], pairs[1:]
		}
	}
	return tokens
}

// kallsymsCompress replaces pairs of characters by the codes that stand for them.
func kallsymsCompress(text string, tokens [256]string) []byte {
	var codes []byte
	for len(text) > 0 {
		code, n := text[0], 1
		if len(text) > 1 {
			if i := slices.Index(tokens[:], text[:2]); i >= 0 {
				code, n = byte(i), 2
			}
		}
		codes, text = append(codes, code), text[n:]
	}
	return codes
}
