package types

import (
	"bytes"
	"encoding/binary"

	"github.com/corehaul/corehaul/kernel"
	"github.com/corehaul/corehaul/mem"
)

// maxSearch bounds the bytes that are searched for BTF. The read-only data of Debian's kernels has 10 MiB.
const maxSearch = 64 << 20

// minSearched is the smallest BTF of a whole kernel: with less, chance or a module's may have made the header.
const minSearched = 256 << 10

// maxCandidates bounds the places whose header is read. What BTF begins with is found by chance once in 16 GiB.
const maxCandidates = 64

// btfStart is what BTF of version 1 begins with: magic, version, no flags.
var btfStart = []byte{0x9f, 0xeb, 1, 0}

// search finds BTF in kernels whose symbols are those of code alone (no CONFIG_KALLSYMS_ALL, as in Debian's 6.1 for arm64). It
// lies in the read-only data, between the code and the code for initialization.
func search(k *kernel.Kernel, symbols Symbols) (start mem.VirtAddr, size uint64, ok bool) {
	from, ok1 := symbols.Address("_etext")
	end, ok2 := symbols.Address("_sinittext")
	if !ok1 || !ok2 || end <= from {
		return 0, 0, false
	}
	page := make([]byte, 1<<k.PageShift())
	pageLen := mem.VirtAddr(len(page))
	end = min(end, from+maxSearch)
	candidates := 0
	for at := from &^ (pageLen - 1); at < end; at += pageLen {
		if k.ReadVirt(page, at) != nil {
			continue
		}
		for i := 0; i < len(page); i += 4 { // __start_BTF is aligned to 4 bytes
			if !bytes.HasPrefix(page[i:], btfStart) {
				continue
			}
			if candidates++; candidates > maxCandidates {
				return 0, 0, false
			}
			if size, ok := measureBTF(k, at+mem.VirtAddr(i)); ok {
				return at + mem.VirtAddr(i), size, true
			}
		}
	}
	return 0, 0, false
}

// measureBTF returns the size of the BTF with a header at an address. Types come first in it, and names follow at once, as
// pahole writes it, or behind a few bytes: newer headers place a table of the kinds of types, which may lie between.
func measureBTF(k *kernel.Kernel, at mem.VirtAddr) (uint64, bool) {
	var b [headerBytes]byte
	if k.ReadVirt(b[:], at) != nil {
		return 0, false
	}
	var words [5]uint64
	for i := range words {
		words[i] = uint64(binary.LittleEndian.Uint32(b[4+4*i:]))
	}
	header, typeOff, typeLen, strOff, strLen := words[0], words[1], words[2], words[3], words[4]
	size := header + strOff + strLen
	const maxHeader, maxBetween = 64, 1024
	if header < headerBytes || header > maxHeader || typeOff != 0 || strOff < typeLen || strOff-typeLen > maxBetween || size < minSearched || size > maxBlob {
		return 0, false
	}
	return size, true
}
