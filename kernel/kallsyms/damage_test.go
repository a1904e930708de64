package kallsyms_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/corehaul/corehaul/kernel/kallsyms"
	"github.com/corehaul/corehaul/kernel/kerneltest"
	"github.com/corehaul/corehaul/mem"
)

// largeTable is a machine whose table has many pages, and the addresses of its functions.
func largeTable(form kerneltest.KallsymsForm) (m *kerneltest.Machine, functions []mem.VirtAddr) {
	var extra []kerneltest.KernelSymbol
	for i := range 3000 {
		at := kerneltest.X86Text + 0x10000 + mem.VirtAddr(32*i)
		functions = append(functions, at)
		extra = append(extra, kerneltest.KernelSymbol{Name: fmt.Sprintf("of_many_%d", i), Addr: at, Type: 't'})
	}
	return machine(form, extra...), functions
}

// tableEnd is behind every table of largeTable.
const tableEnd = tableAt + 0x20000

// remove takes the page at an offset of the image out of memory. restore puts it back.
func remove(t *testing.T, m *kerneltest.Machine, offset uint64) (restore func()) {
	t.Helper()
	at := mem.PhysAddr(m.Image(offset) - m.ImageAddr(0))
	b := make([]byte, kerneltest.PageSize)
	if m.ReadPhys(b, at) != nil { // there is none
		return func() {}
	}
	m.Remove(at)
	return func() { m.Write(at, b) }
}

// damagedForms are those between which the order of the tables or the way to find them changed.
var damagedForms = []string{"5.10", "6.1", "7.0, place-relative"}

// TestMissingPages: each page of the tables costs what it has, and no symbol gets another's name or address.
func TestMissingPages(t *testing.T) {
	for _, name := range damagedForms {
		m, functions := largeTable(kerneltest.KallsymsForms()[name])
		whole, err := load(t, m)
		if err != nil {
			t.Fatal(err)
		}
		refused, incomplete := 0, 0
		for offset := uint64(tableAt); offset < tableEnd; offset += kerneltest.PageSize {
			restore := remove(t, m, offset)
			table, err := load(t, m)
			restore()
			switch {
			case table == nil:
				refused++
				continue
			case errors.Is(err, kallsyms.ErrIncomplete):
				incomplete++
			case err != nil:
				t.Fatalf("%s: page %#x: a table and %v", name, offset, err)
			}
			// The page, and the two blocks in which it begins and ends; addresses have at least 4 bytes.
			missing := compare(t, whole, table, functions)
			if most := kerneltest.PageSize/4 + 2*256; missing > most || missing > 0 && err == nil {
				t.Errorf("%s: page %#x: %d symbols are missing, at most %d can be: %v", name, offset, missing, most, err)
			}
		}
		// Tokens, their index, and the page with the number of symbols are needed, and in old kernels the markers.
		if refused > 4 || incomplete < 6 {
			t.Errorf("%s: %d pages were needed, %d cost some symbols", name, refused, incomplete)
		}
	}
}

// compare returns how many functions a table lacks. Of the others it has what the whole one has.
func compare(t *testing.T, whole, table *kallsyms.Table, functions []mem.VirtAddr) (missing int) {
	t.Helper()
	for _, at := range functions {
		want, _ := whole.Find(at + 3)
		got, ok := table.Find(at + 3)
		addr, ok2 := table.Address(want.Name)
		if ok && got != want || ok2 && addr != at {
			t.Fatalf("%v is in %+v, %q is at %v; want %+v", at+3, got, want.Name, addr, want)
		}
		if !ok || !ok2 {
			missing++
		}
	}
	return missing
}

// TestCutTables: the tables of a dump that was cut in the middle of them. Since 6.4 the addresses come last.
func TestCutTables(t *testing.T) {
	for _, name := range damagedForms {
		m, functions := largeTable(kerneltest.KallsymsForms()[name])
		whole, err := load(t, m)
		if err != nil {
			t.Fatal(err)
		}
		tables := 0
		for keep := uint64(tableEnd - kerneltest.PageSize); keep >= tableAt; keep -= kerneltest.PageSize {
			remove(t, m, keep)
			table, err := load(t, m)
			if table == nil && err == nil {
				t.Fatalf("%s: neither a table nor an error", name)
			}
			if table != nil && err != nil {
				tables++
				compare(t, whole, table, functions)
			}
		}
		if kerneltest.KallsymsForms()[name].AddressesLast != (tables > 0) {
			t.Errorf("%s: %d incomplete tables", name, tables)
		}
	}
}

// TestMissingMarkers: a marker that contradicts the names is refused, also behind a hole.
func TestMissingMarkers(t *testing.T) {
	m, _ := largeTable(kerneltest.KallsymsForms()["6.12"])
	remove(t, m, m.Symbols["kallsyms_names"]+3*kerneltest.PageSize-uint64(m.Image(0)))
	at := m.Symbols["kallsyms_token_table"] - 4*4 // the fourth marker from the end
	m.WriteVirt(mem.VirtAddr(at), kerneltest.Uint32(7))
	if table, err := load(t, m); table != nil || !errors.Is(err, kallsyms.ErrCorrupt) {
		t.Errorf("got %v, %v", table, err)
	}
}

// TestLostOfSeveral: of several symbols with one name, where the address of the lowest is lost, none is given for it.
func TestLostOfSeveral(t *testing.T) {
	for _, name := range damagedForms {
		var extra []kerneltest.KernelSymbol
		for i := range 3000 {
			extra = append(extra, kerneltest.KernelSymbol{Name: fmt.Sprintf("of_many_%d", i), Addr: kerneltest.X86Text + 0x10000 + mem.VirtAddr(32*i), Type: 't'})
		}
		extra[10].Name, extra[2900].Name = "of_several", "of_several"
		m := machine(kerneltest.KallsymsForms()[name], extra...)
		lost := 0
		for offset := uint64(tableAt); offset < tableEnd; offset += kerneltest.PageSize {
			restore := remove(t, m, offset)
			table, err := load(t, m)
			restore()
			if table == nil || err != nil && !strings.Contains(err.Error(), ": 0 of ") { // which names are lost is not known
				continue
			}
			at, ok := table.Address("of_several")
			if ok && at != extra[10].Addr {
				t.Errorf("%s: page %#x: %v, want %v", name, offset, at, extra[10].Addr)
			}
			if !ok {
				lost++
			}
		}
		if lost == 0 {
			t.Errorf("%s: no page cost its address", name)
		}
	}
}
