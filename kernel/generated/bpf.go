package generated

import (
	"encoding/hex"
	"fmt"

	"github.com/corehaul/corehaul/kernel/types"
	"github.com/corehaul/corehaul/mem"
)

// readBPF reads the list bpf_kallsyms. Its nodes are struct bpf_ksym of programs, trampolines and dispatchers since 5.7
// (ecb60d1c670d, "bpf: Move lnode list node to struct bpf_ksym"), before it struct bpf_prog_aux of programs.
func (r *reader) readBPF() error {
	head, ok := r.symbols.Address("bpf_kallsyms")
	if !ok {
		return nil
	}
	first, err := r.k.ReadUint64(head)
	if err != nil {
		return fmt.Errorf("bpf_kallsyms: %w", err)
	}
	symbol, err := r.view("bpf_ksym", "start", "end", "name", "lnode.next")
	if err != nil {
		return err
	}
	if symbol == nil {
		return r.readPrograms(head, mem.VirtAddr(first))
	}
	return r.follow("bpf_kallsyms", symbol, "lnode.next", "lnode.next", mem.VirtAddr(first), head, func(rec types.Record) error {
		r.add(Code{Name: rec.Text("name"), Start: rec.Pointer("start"), End: rec.Pointer("end"), bpf: true})
		return nil
	})
}

// readPrograms reads the list of kernels before 5.7.
func (r *reader) readPrograms(head, first mem.VirtAddr) error {
	aux, err := r.view("bpf_prog_aux", "ksym_lnode.next", "prog", "name")
	if err != nil || aux == nil {
		return err
	}
	// The kernel takes the name from the program's own types, if it has some.
	withTypes, err := r.view("bpf_prog_aux", "func_info_cnt")
	if err != nil {
		return err
	}
	program, err := r.view("bpf_prog", "bpf_func", "tag")
	if err != nil || program == nil {
		return err
	}
	pages, err := r.view("bpf_binary_header", "pages")
	if err != nil || pages == nil {
		return err
	}
	return r.follow("bpf_kallsyms", aux, "ksym_lnode.next", "ksym_lnode.next", first, head, func(rec types.Record) error {
		prog, err := program.Read(r.k, rec.Pointer("prog"))
		if err != nil {
			return err
		}
		// bpf_get_prog_addr_region: the header of the code is at the start of its first page.
		start := prog.Pointer("bpf_func") &^ (1<<r.k.PageShift() - 1)
		header, err := pages.Read(r.k, start)
		if err != nil {
			return err
		}
		name := "bpf_prog_" + hex.EncodeToString(prog.Bytes("tag"))
		if text := rec.Text("name"); text != "" && !r.hasTypes(withTypes, rec) {
			name += "_" + text
		}
		r.add(Code{Name: name, Start: start, End: start + mem.VirtAddr(uint32(header.Uint("pages")))<<r.k.PageShift(), bpf: true}) //nolint:gosec // a u32
		return nil
	})
}

// hasTypes reports whether a struct bpf_prog_aux has the names of its functions in its own BTF.
func (r *reader) hasTypes(v *types.View, aux types.Record) bool {
	if v == nil {
		return false
	}
	rec, err := v.Read(r.k, aux.Addr(""))
	return err != nil || rec.Uint("func_info_cnt") > 0
}
