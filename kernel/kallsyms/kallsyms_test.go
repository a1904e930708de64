package kallsyms_test

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/corehaul/corehaul/kernel"
	"github.com/corehaul/corehaul/kernel/kallsyms"
	"github.com/corehaul/corehaul/kernel/kerneltest"
	"github.com/corehaul/corehaul/mem"
)

// tableAt is where the tables of these tests lie in the kernel image.
const tableAt = 0x100000

// symbols are those of an image with code from text on: enough for several markers, with aliases, names that occur twice
// and, on machines that have them, per-CPU symbols at small addresses.
func symbols(text mem.VirtAddr, percpu bool) []kerneltest.KernelSymbol {
	list := []kerneltest.KernelSymbol{
		{Name: "_stext", Addr: text, Type: 'T'},
		{Name: "_text", Addr: text, Type: 'T'},
		{Name: "startup_64", Addr: text, Type: 'T'},
		{Name: "twice", Addr: text + 0x100, Type: 't'},
		{Name: "twice", Addr: text + 0x180, Type: 't'},
		{Name: "init_uts_ns", Addr: text + 0x2000, Type: 'D'},
		{Name: "swapper_pg_dir", Addr: text + 0x200000, Type: 'D'},
		{Name: "_end", Addr: text + 0x300000, Type: 'B'},
	}
	if percpu {
		list = append(list, kerneltest.KernelSymbol{Name: "cpu_number", Addr: 0x28, Type: 'A'},
			kerneltest.KernelSymbol{Name: "__per_cpu_start", Addr: 0, Type: 'A'})
	}
	for i := range mem.VirtAddr(700) {
		list = append(list, kerneltest.KernelSymbol{Name: fmt.Sprintf("function_%d", i), Addr: text + 0x3000 + 16*i, Type: 't'})
	}
	return list
}

// machine is a machine with a table of a form.
func machine(form kerneltest.KallsymsForm, extra ...kerneltest.KernelSymbol) *kerneltest.Machine {
	m := kerneltest.NewX86(4)
	percpu := form.Encoding == kerneltest.KallsymsAbsolute || form.Encoding == kerneltest.KallsymsAbsolutePercpu
	m.SetKallsyms(m.Image(tableAt), form, append(symbols(m.Image(0), percpu), extra...))
	m.Symbols["init_uts_ns"] = uint64(m.Image(0x2000))
	return m
}

func load(t *testing.T, m *kerneltest.Machine) (*kallsyms.Table, error) {
	t.Helper()
	k, err := kernel.New(m.Config())
	if err != nil {
		t.Fatal(err)
	}
	return kallsyms.Load(k)
}

func TestEveryForm(t *testing.T) {
	for name, form := range kerneltest.KallsymsForms() {
		t.Run(name, func(t *testing.T) {
			m := machine(form)
			table, err := load(t, m)
			if err != nil {
				t.Fatal(err)
			}
			text := m.Image(0)
			for name, want := range map[string]mem.VirtAddr{
				"_stext": text, "startup_64": text, "twice": text + 0x100, "init_uts_ns": text + 0x2000,
				"function_699": text + 0x3000 + 16*699, "_end": text + 0x300000,
			} {
				if got, ok := table.Address(name); !ok || got != want {
					t.Errorf("%s is at %v, %v, want %v", name, got, ok, want)
				}
			}
			for a, want := range map[mem.VirtAddr]kallsyms.Symbol{
				text:                        {Name: "_stext", Addr: text, Size: 0x100, Type: 'T'},
				text + 0xff:                 {Name: "_stext", Addr: text, Size: 0x100, Type: 'T'},
				text + 0x17f:                {Name: "twice", Addr: text + 0x100, Size: 0x80, Type: 't'},
				text + 0x3000 + 16*300 + 5:  {Name: "function_300", Addr: text + 0x3000 + 16*300, Size: 16, Type: 't'},
				text + 0x300000 - 1:         {Name: "swapper_pg_dir", Addr: text + 0x200000, Size: 0x100000, Type: 'D'},
				text + 0x3000 + 16*699 + 16: {Name: "function_699", Addr: text + 0x3000 + 16*699, Size: 0x200000 - 0x3000 - 16*699, Type: 't'},
			} {
				if got, ok := table.Find(a); !ok || got != want {
					t.Errorf("%v is in %+v, %v, want %+v", a, got, ok, want)
				}
			}
			for _, a := range []mem.VirtAddr{0, 0x28, text - 1, text + 0x300000, ^mem.VirtAddr(0)} {
				if got, ok := table.Find(a); ok {
					t.Errorf("%v, outside of the image, is in %+v", a, got)
				}
			}
			if got, ok := table.Address("no_such_function"); ok {
				t.Errorf("no_such_function is at %v", got)
			}
		})
	}
}

// TestLongNames: a length of 128 or more is one byte or two.
func TestLongNames(t *testing.T) {
	for _, form := range []string{"6.0", "6.1", "7.0, place-relative"} {
		var long []byte
		for i := range 110 {
			long = append(long, 'A'+byte(i*i%53), 'A'+byte(i%57))
		}
		m := machine(kerneltest.KallsymsForms()[form], kerneltest.KernelSymbol{Name: string(long), Addr: kerneltest.X86Text + 0x1000, Type: 't'})
		table, err := load(t, m)
		if err != nil {
			t.Errorf("%s: %v", form, err)
			continue
		}
		if got, _ := table.Find(m.Image(0x1000)); got.Name != string(long) {
			t.Errorf("%s: got %q, want %q", form, got.Name, long)
		}
		if got, _ := table.Find(m.Image(0x3000)); got.Name != "function_0" {
			t.Errorf("%s: the name behind a long one is %q", form, got.Name)
		}
	}
}

// TestCodeAlone: without CONFIG_KALLSYMS_ALL the table has code only, and other addresses have no symbol.
func TestCodeAlone(t *testing.T) {
	m := kerneltest.NewX86(4)
	text := m.Image(0)
	m.SetKallsyms(m.Image(tableAt), kerneltest.KallsymsForms()["6.1"], []kerneltest.KernelSymbol{
		{Name: "_stext", Addr: text, Type: 'T'},
		{Name: "f", Addr: text + 16, Type: 't'},
		{Name: "_etext", Addr: text + 32, Type: 'T'},
		{Name: "_sinittext", Addr: text + 0x1000, Type: 'T'},
		{Name: "_einittext", Addr: text + 0x1010, Type: 'T'},
	})
	table, err := load(t, m)
	if err != nil {
		t.Fatal(err)
	}
	if got, ok := table.Find(text + 31); !ok || got.Name != "f" || got.Size != 16 {
		t.Errorf("got %+v, %v", got, ok)
	}
	for _, a := range []mem.VirtAddr{text + 32, text + 0xfff, text + 0x1010} {
		if got, ok := table.Find(a); ok {
			t.Errorf("%v has %+v", a, got)
		}
	}
}

// TestDamage: what contradicts itself is refused, with an error that says what disagrees.
func TestDamage(t *testing.T) {
	for _, tc := range []struct {
		name, form string
		damage     func(m *kerneltest.Machine)
		want       string
		is         error
	}{
		{"no table", "5.10", func(m *kerneltest.Machine) { *m = *kerneltest.NewX86(4) }, "no SYMBOL(kallsyms_names)", kallsyms.ErrNotFound},
		{"no _stext", "5.10", func(m *kerneltest.Machine) { delete(m.Symbols, "_stext") }, "nor SYMBOL(_stext)", kallsyms.ErrNotFound},
		{"no token table", "6.1", func(m *kerneltest.Machine) { delete(m.Symbols, "kallsyms_token_table") }, "SYMBOL(kallsyms_token_table)", kallsyms.ErrNotFound},
		{"no addresses", "6.1", func(m *kerneltest.Machine) { delete(m.Symbols, "kallsyms_offsets") }, "SYMBOL(kallsyms_offsets)", kallsyms.ErrNotFound},
		{"no symbols", "6.1", put("kallsyms_num_syms", kerneltest.Uint32(0)), "kallsyms_num_syms is 0", kallsyms.ErrCorrupt},
		{"many symbols", "6.1", put("kallsyms_num_syms", kerneltest.Uint32(1<<31)), "kallsyms_num_syms is 2147483648", kallsyms.ErrCorrupt},
		{"one symbol too many", "6.1", put("kallsyms_num_syms", kerneltest.Uint32(711)), "kallsyms", kallsyms.ErrCorrupt},
		{"a longer name", "6.1", put("kallsyms_names", []byte{0x7f}), "kallsyms_", kallsyms.ErrCorrupt},
		{"names that run out of the table", "6.1", put("kallsyms_names", []byte{0xff, 0x7f}), "kallsyms_names ends in name", kallsyms.ErrCorrupt},
		{"a name without a length", "6.1", put("kallsyms_names", []byte{0}), "no name for symbol 0", kallsyms.ErrCorrupt},
		{"another marker", "6.1", put("kallsyms_markers", kerneltest.Uint32(1)), "symbol 0 of 710 at 1", kallsyms.ErrCorrupt},
		{"another token index", "6.1", put("kallsyms_token_index", kerneltest.Uint32(0x00090000)), "token 1 at 9", kallsyms.ErrCorrupt},
		{"tables in another order", "6.1", move("kallsyms_names", 0x10000), "kallsyms_names at", kallsyms.ErrCorrupt},
		{"an index before its tokens", "6.1", move("kallsyms_token_index", -0x2000), "kallsyms_token_index at", kallsyms.ErrCorrupt},
		{"another base", "6.1", put("kallsyms_relative_base", kerneltest.Uint64(1)), "VMCOREINFO has SYMBOL(_stext)=", kallsyms.ErrCorrupt},
		{"another _stext", "7.0, place-relative", move("_stext", 16), "VMCOREINFO has SYMBOL(_stext)=", kallsyms.ErrCorrupt},
		{"another init_uts_ns", "6.12", move("init_uts_ns", 16), "VMCOREINFO has SYMBOL(init_uts_ns)=", kallsyms.ErrCorrupt},
		{"addresses that do not ascend", "7.0, place-relative", put("kallsyms_offsets+400", kerneltest.Uint32(0)), "symbol 101 of 708", kallsyms.ErrCorrupt},
		{"addresses out of memory", "6.12", move("kallsyms_offsets", 1<<40), "address", kernel.ErrNotMapped},
		{"names out of memory", "6.12", move("kallsyms_num_syms", 1<<40), "kallsyms_num_syms", kernel.ErrNotMapped},
	} {
		t.Run(tc.name, func(t *testing.T) {
			m := machine(kerneltest.KallsymsForms()[tc.form])
			tc.damage(m)
			table, err := load(t, m)
			if table != nil || !errors.Is(err, tc.is) || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("got %v, %v, want %q and %v", table, err, tc.want, tc.is)
			}
		})
	}
}

// put returns a function that writes b at a symbol of VMCOREINFO. kallsyms_markers and symbol+offset are possible too.
func put(name string, b []byte) func(m *kerneltest.Machine) {
	return func(m *kerneltest.Machine) {
		name, offset := name, uint64(0)
		if base, text, ok := strings.Cut(name, "+"); ok {
			name = base
			if _, err := fmt.Sscan(text, &offset); err != nil {
				panic(err)
			}
		}
		m.WriteVirt(mem.VirtAddr(m.Symbols[name]+offset), b)
	}
}

// move returns a function that changes the address that VMCOREINFO has for a symbol.
func move(name string, by int64) func(m *kerneltest.Machine) {
	return func(m *kerneltest.Machine) { m.Symbols[name] += uint64(by) }
}

// TestManyCandidates: memory full of what looks like tokens does not keep anybody busy.
func TestManyCandidates(t *testing.T) {
	m := kerneltest.NewX86(4)
	digits := strings.Repeat("0\x001\x002\x003\x004\x005\x006\x007\x008\x009\x00", 50000)
	m.WriteVirt(m.Image(tableAt), []byte(digits))
	if table, err := load(t, m); table != nil || !errors.Is(err, kallsyms.ErrNotFound) {
		t.Errorf("got %v, %v", table, err)
	}
}

// TestManyTokens: neither does memory full of tokens without names.
func TestManyTokens(t *testing.T) {
	m := kerneltest.NewX86(4)
	for i := range uint64(5) {
		m.SetKallsyms(m.Image(0x20000*i), kerneltest.KallsymsForms()["6.0"], symbols(m.Image(0), true))
		put("kallsyms_num_syms", kerneltest.Uint32(0))(m)
	}
	maps.DeleteFunc(m.Symbols, func(name string, _ uint64) bool { return strings.HasPrefix(name, "kallsyms_") })
	table, err := load(t, m)
	if table != nil || !errors.Is(err, kallsyms.ErrNotFound) || !strings.Contains(err.Error(), "but none has names") {
		t.Errorf("got %v, %v", table, err)
	}
}

// FuzzLoad changes a few bytes of a table, or its place, and removes a page. Whatever they say, Load ends, and every symbol that it finds has
// a name, an address and a size.
func FuzzLoad(f *testing.F) {
	forms := slices.Sorted(maps.Keys(kerneltest.KallsymsForms()))
	for i := range forms {
		f.Add(uint8(i), uint16(0), []byte{}, uint8(0), uint64(0), uint8(0xff))
		f.Add(uint8(i), uint16(0x300), []byte{0xff, 0xff, 0xff, 0x7f}, uint8(i), uint64(8), uint8(1))
		f.Add(uint8(i), uint16(0xb10), []byte("0\x001\x002\x003\x00"), uint8(3*i), ^uint64(0), uint8(2))
	}
	f.Fuzz(func(t *testing.T, form uint8, offset uint16, b []byte, key uint8, by uint64, hole uint8) {
		m := machine(kerneltest.KallsymsForms()[forms[int(form)%len(forms)]])
		m.WriteVirt(m.Image(tableAt+uint64(offset)), b)
		keys := slices.Sorted(maps.Keys(m.Symbols))
		if name := keys[int(key)%len(keys)]; name != "swapper_pg_dir" {
			m.Symbols[name] += by
		}
		remove(t, m, tableAt+uint64(hole)*kerneltest.PageSize)
		table, err := load(t, m)
		if (table == nil) != (err != nil) && !errors.Is(err, kallsyms.ErrIncomplete) {
			t.Fatalf("got %v and %v", table, err)
		}
		if table == nil {
			return
		}
		for a := m.Image(0); a < m.Image(0x300000); a += 0x1007 {
			if s, ok := table.Find(a); ok && (s.Size == 0 || a < s.Addr || uint64(a-s.Addr) >= s.Size) {
				t.Errorf("%v is in %+v", a, s)
			}
		}
	})
}
