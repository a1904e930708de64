package vmcore_test

import (
	"debug/elf"
	"fmt"
	"strings"
	"testing"

	"github.com/corehaul/corehaul/vmcore"
	"github.com/corehaul/corehaul/vmcore/vmcoretest"
)

// TestMachineNames: machines are called as uname -m calls them, which libkdumpfile and
// drgn go by, and found by those names and QEMU's.
func TestMachineNames(t *testing.T) {
	for _, tc := range []struct {
		machine elf.Machine
		order   vmcoretest.Order
		want    string
	}{
		{elf.EM_X86_64, le, "x86_64"},
		{elf.EM_AARCH64, le, "aarch64"},
		{elf.EM_AARCH64, be, "aarch64_be"},
		{elf.EM_PPC64, le, "ppc64le"},
		{elf.EM_PPC64, be, "ppc64"},
		{elf.EM_S390, be, "s390x"},
		{elf.EM_RISCV, le, "riscv64"},
		{elf.EM_LOONGARCH, le, "loongarch64"},
		{elf.EM_386, le, ""},
		{elf.EM_NONE, le, ""},
	} {
		got := vmcore.MachineName(tc.machine, tc.order)
		if got != tc.want {
			t.Errorf("%v, %v: %q, want %q", tc.machine, tc.order, got, tc.want)
		}
		if got != "" && vmcore.MachineNamed(got) != tc.machine {
			t.Errorf("%q is %v", got, vmcore.MachineNamed(got))
		}
	}
	for name, want := range map[string]elf.Machine{"S390X": elf.EM_S390, "PPC64": elf.EM_PPC64, "Unknown": elf.EM_NONE, "": elf.EM_NONE, "i686": elf.EM_NONE} {
		if got := vmcore.MachineNamed(name); got != want {
			t.Errorf("%q is %v, want %v", name, got, want)
		}
	}
}

// TestMachineOfNotes: a file that names no machine has notes that tell it, by the length
// of NT_PRSTATUS or by what only one architecture's kernel writes into VMCOREINFO. What
// two machines have in common tells nothing.
func TestMachineOfNotes(t *testing.T) {
	for _, tc := range []struct {
		prstatus int
		order    vmcoretest.Order
		text     string
		want     elf.Machine
	}{
		{336, le, "", elf.EM_X86_64},
		{336, be, "", elf.EM_S390},
		{392, le, "", elf.EM_AARCH64},
		{504, le, "", elf.EM_PPC64},
		{504, be, "", elf.EM_PPC64},
		{376, le, "", elf.EM_RISCV},
		{376, be, "", elf.EM_NONE},
		{480, le, "", elf.EM_NONE}, // LoongArch and MIPS
		{480, be, "", elf.EM_MIPS},
		{480, le, "SYMBOL(_stext)=9000000000201000\n", elf.EM_LOONGARCH},
		{480, le, "SYMBOL(_stext)=ffffffff80100000\n", elf.EM_NONE},
		{0, le, "NUMBER(kimage_voffset)=0xffff800007c00000\n", elf.EM_AARCH64},
		{0, le, "NUMBER(pgtable_l5_enabled)=0\n", elf.EM_X86_64},
		{0, le, "SYMBOL(init_level4_pgt)=ffffffff81c0a000\n", elf.EM_X86_64},
		{0, le, "NUMBER(phys_ram_base)=2147483648\n", elf.EM_RISCV},
		{0, be, "SYMBOL(lowcore_ptr)=1234\n", elf.EM_S390},
		{0, le, "SYMBOL(vmemmap_list)=c000000001234568\n", elf.EM_PPC64},
		{336, le, "NUMBER(TCR_EL1_T1SZ)=0x10\n", elf.EM_AARCH64}, // what the kernel says wins
		{340, le, "", elf.EM_NONE},
		{0, le, "", elf.EM_NONE},
	} {
		t.Run(fmt.Sprintf("%d %v %.24s", tc.prstatus, tc.order, tc.text), func(t *testing.T) {
			notes := vmcoretest.VMCOREINFO(tc.order, "OSRELEASE=6.1\n"+tc.text)
			if tc.prstatus > 0 {
				notes = append(notes, vmcoretest.Note(tc.order, "CORE", 1, make([]byte, tc.prstatus))...)
			}
			i := &vmcore.Info{ByteOrder: tc.order}
			i.AddNotes(notes)
			if i.Machine != tc.want {
				t.Errorf("got %v, want %v", i.Machine, tc.want)
			}
			named := &vmcore.Info{ByteOrder: tc.order, Machine: elf.EM_IA_64}
			named.AddNotes(notes)
			if named.Machine != elf.EM_IA_64 {
				t.Errorf("the machine that the file names became %v", named.Machine)
			}
		})
	}
}

// TestErasedDataIsTold: notes that say that data was erased leave a warning that says what,
// in text that a terminal may see.
func TestErasedDataIsTold(t *testing.T) {
	for name, o := range map[string]vmcoretest.Order{"little": le, "big": be} {
		t.Run(name, func(t *testing.T) {
			text := "erase jiffies size 8\nerase \x1b[2Jsecret nullify\nerase c size 1\nerase d size 2\n"
			notes := vmcore.AppendERASEINFO(vmcoretest.VMCOREINFO(o, "OSRELEASE=6.1\n"), o, []byte(text))
			i := &vmcore.Info{ByteOrder: o}
			i.AddNotes(notes)
			if string(i.Eraseinfo) != text || len(i.Erased()) != 4 || i.Erased()[0] != "erase jiffies size 8" {
				t.Errorf("got %q, lines %q", i.Eraseinfo, i.Erased())
			}
			if w := strings.Join(i.Warnings, "|"); !strings.Contains(w, "erase jiffies size 8") || !strings.Contains(w, "and 1 more") || strings.Contains(w, "\x1b") {
				t.Errorf("warnings: %q", i.Warnings)
			}
			desc, off := vmcore.FindERASEINFO(notes, o)
			if string(desc) != text || string(notes[off:off+len(text)]) != text {
				t.Errorf("FindERASEINFO: %q at %d", desc, off)
			}
		})
	}
}
