package kallsyms

import (
	"fmt"

	"github.com/corehaul/corehaul/kernel"
	"github.com/corehaul/corehaul/mem"
)

// places are the addresses of the tables that make up kallsyms. 0 means that there is none.
type places struct {
	numSyms    mem.VirtAddr // u32; an unsigned long before 4.20
	names      mem.VirtAddr // lengths and token numbers, then the markers
	tokenTable mem.VirtAddr // 256 strings
	tokenIndex mem.VirtAddr // 256 u16: where in tokenTable each of them starts

	offsets      mem.VirtAddr // one s32 for each symbol
	relativeBase mem.VirtAddr // u64 to which offsets are relative; none since 7.0
	addresses    mem.VirtAddr // one u64 for each symbol, where there are no offsets
}

// locate finds the tables through VMCOREINFO (kernel 6.0, "vmcoreinfo: add kallsyms_num_syms symbol" and the commits
// before it), or in memory.
func locate(k *kernel.Kernel) (*places, error) {
	at := &places{}
	info := k.Info()
	get := func(name string) mem.VirtAddr {
		va, _ := info.Symbol(name)
		return mem.VirtAddr(va)
	}
	at.names = get("kallsyms_names")
	if at.names == 0 {
		return scan(k)
	}
	at.numSyms, at.tokenTable, at.tokenIndex = get("kallsyms_num_syms"), get("kallsyms_token_table"), get("kallsyms_token_index")
	at.offsets, at.relativeBase, at.addresses = get("kallsyms_offsets"), get("kallsyms_relative_base"), get("kallsyms_addresses")
	for name, va := range map[string]mem.VirtAddr{
		"kallsyms_num_syms": at.numSyms, "kallsyms_token_table": at.tokenTable, "kallsyms_token_index": at.tokenIndex,
		"kallsyms_offsets": at.offsets | at.addresses,
	} {
		if va == 0 {
			return nil, fmt.Errorf("%w: VMCOREINFO has SYMBOL(kallsyms_names), but no SYMBOL(%s)", ErrNotFound, name)
		}
	}
	return at, nil
}
