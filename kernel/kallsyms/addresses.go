package kallsyms

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/corehaul/corehaul/kernel"
	"github.com/corehaul/corehaul/mem"
)

// anchors are symbols whose addresses VMCOREINFO may have too. Which of them kallsyms has depends on the machine and on
// CONFIG_KALLSYMS_ALL, but it always has _stext.
var anchors = []string{"_stext", "init_uts_ns", "swapper_pg_dir", "init_top_pgt"}

// encoding is a way in which kallsyms may store addresses: kallsyms_sym_address in kernel/kallsyms.c.
type encoding struct {
	name   string
	table  mem.VirtAddr
	width  int                            // bytes of a value
	decode func(i int, raw uint64) uint64 // raw is the i-th value, of 4 bytes with sign extended
}

// readAddresses reads the addresses of all symbols. It takes the first encoding with which they are ascending and agree
// with VMCOREINFO.
func (t *Table) readAddresses(k *kernel.Kernel, at *places) error {
	encodings, err := at.encodings(k)
	if err != nil {
		return err
	}
	var failures []error
	for _, e := range encodings {
		if t.addresses, t.lost, err = e.read(k, len(t.names.starts)); err == nil {
			err = t.checkAddresses(k.Info())
		}
		if err == nil {
			return nil
		}
		failures = append(failures, fmt.Errorf("with %s addresses: %w", e.name, err))
	}
	return errors.Join(failures...)
}

// encodings returns the encodings that the tables may have.
func (at *places) encodings(k *kernel.Kernel) ([]encoding, error) {
	var list []encoding
	if at.offsets != 0 && at.relativeBase == 0 {
		// 7.0, "kallsyms: Get rid of kallsyms relative base".
		list = append(list, encoding{"place-relative", at.offsets, 4, func(i int, raw uint64) uint64 {
			return uint64(at.offsets) + 4*uint64(i) + raw //nolint:gosec // an index
		}})
	}
	if at.offsets != 0 && at.relativeBase != 0 {
		base, err := k.ReadUint64(at.relativeBase)
		if err != nil {
			return nil, fmt.Errorf("kallsyms_relative_base: %w", err)
		}
		list = append(list,
			// CONFIG_KALLSYMS_ABSOLUTE_PERCPU, of x86_64 before 6.15.
			encoding{"absolute-percpu", at.offsets, 4, func(_ int, raw uint64) uint64 {
				if int64(raw) >= 0 { //nolint:gosec // the sign decides
					return raw
				}
				return base - 1 - raw
			}},
			encoding{"base-relative", at.offsets, 4, func(_ int, raw uint64) uint64 { return base + raw&(1<<32-1) }})
	}
	if at.addresses != 0 {
		// Without CONFIG_KALLSYMS_BASE_RELATIVE, before 6.11.
		list = append(list, encoding{"absolute", at.addresses, 8, func(_ int, raw uint64) uint64 { return raw }})
	}
	return list, nil
}

// read returns the addresses that the encoding gives to all symbols, and which of them are lost.
func (e *encoding) read(k *kernel.Kernel, count int) ([]uint64, kernel.Holes, error) {
	b := make([]byte, count*e.width)
	lost, err := k.ReadHoley(b, e.table)
	if err != nil {
		return nil, nil, fmt.Errorf("addresses: %w", err)
	}
	lost = scaled(lost, e.width)
	addresses := make([]uint64, count)
	for i := range addresses {
		switch {
		case lost.Has(i, i+1) && i > 0:
			addresses[i] = addresses[i-1]
		case lost.Has(i, i+1): // 0
		case e.width == 4:
			addresses[i] = e.decode(i, uint64(int32(binary.LittleEndian.Uint32(b[4*i:])))) //nolint:gosec // extends the sign
		default:
			addresses[i] = e.decode(i, binary.LittleEndian.Uint64(b[8*i:]))
		}
	}
	return addresses, lost, nil
}

// checkAddresses holds addresses to VMCOREINFO and to their order.
func (t *Table) checkAddresses(info kernel.VMCoreInfo) error {
	checked := false
	for _, name := range anchors {
		want, ok := info.Symbol(name)
		if !ok || want == 0 {
			continue
		}
		found, agrees := t.anchor(name, want)
		if found != 0 && !agrees {
			return corrupt("%s is at %v, but VMCOREINFO has SYMBOL(%s)=%v", name, mem.VirtAddr(found), name, mem.VirtAddr(want))
		}
		checked = checked || agrees
	}
	if !checked {
		return corrupt("kallsyms has none of the symbols %v of VMCOREINFO", anchors)
	}
	if i, ok := firstUnsorted(t.addresses); ok {
		return corrupt("symbol %d of %d at %v follows one at %v", i, len(t.addresses), mem.VirtAddr(t.addresses[i]), mem.VirtAddr(t.addresses[i-1]))
	}
	return nil
}

// anchor returns the address of a symbol, and whether it is the wanted one. It may be one of several with the same name.
func (t *Table) anchor(name string, want uint64) (found uint64, agrees bool) {
	for i := range t.index.find(t.names, name) {
		if t.lost.Has(i, i+1) {
			continue
		}
		if found = t.addresses[i]; found == want {
			return found, true
		}
	}
	return found, false
}
