package vmcore

import (
	"debug/elf"
	"encoding/binary"
	"strings"
)

// machine is an architecture that kdump supports.
type machine struct {
	elf elf.Machine
	// little and big are utsname.machine of a little-endian and a big-endian kernel (UTS_MACHINE in arch/*/Makefile);
	// empty if there is no such kernel.
	little, big string
	// prstatus is the length of struct elf_prstatus in bytes: prstatusReg, the general
	// registers (elf_gregset_t of arch/*/include/uapi/asm/ptrace.h), prstatusTail.
	prstatus int
}

// machines lists all supported machines. All have 64 bits.
var machines = []machine{
	{elf.EM_X86_64, "x86_64", "", prstatusReg + 27*8 + prstatusTail},
	{elf.EM_AARCH64, "aarch64", "aarch64_be", prstatusReg + 34*8 + prstatusTail},
	{elf.EM_PPC64, "ppc64le", "ppc64", prstatusReg + 48*8 + prstatusTail},
	{elf.EM_S390, "", "s390x", prstatusReg + 27*8 + prstatusTail},
	{elf.EM_RISCV, "riscv64", "", prstatusReg + 32*8 + prstatusTail},
	{elf.EM_LOONGARCH, "loongarch64", "", prstatusReg + 45*8 + prstatusTail},
	{elf.EM_MIPS, "mips64", "mips64", prstatusReg + 45*8 + prstatusTail},
	{elf.EM_IA_64, "ia64", "", prstatusReg + 128*8 + prstatusTail},
}

// name is utsname.machine of a kernel with that byte order.
func (m *machine) name(order binary.ByteOrder) string {
	if order == binary.BigEndian && m.big != "" || m.little == "" {
		return m.big
	}
	return m.little
}

// MachineName returns the name of a machine in its kernel's uname -m. order (nil is little endian) distinguishes
// ppc64 from ppc64le. It is empty for an unknown machine.
func MachineName(m elf.Machine, order binary.ByteOrder) string {
	for i := range machines {
		if machines[i].elf == m {
			return machines[i].name(order)
		}
	}
	return ""
}

// MachineNamed returns the machine of that name, or EM_NONE. It ignores case: QEMU writes S390X and PPC64 into the
// headers of its dumps (ELF_MACHINE_UNAME in target/*/cpu.h).
func MachineNamed(name string) elf.Machine {
	name = strings.ToLower(name)
	for _, m := range machines {
		if name != "" && (name == m.little || name == m.big) {
			return m.elf
		}
	}
	return elf.EM_NONE
}

// guessMachine guesses the machine of a dump whose headers do not name one.
func (i *Info) guessMachine(prstatus int) elf.Machine {
	if m := i.machineOfText(); m != elf.EM_NONE {
		return m
	}
	var found []elf.Machine
	for _, m := range machines {
		fits := m.little != "" && i.ByteOrder != binary.BigEndian || m.big != "" && i.ByteOrder == binary.BigEndian
		if fits && m.prstatus == prstatus {
			found = append(found, m.elf)
		}
	}
	if len(found) == 1 {
		return found[0]
	}
	return elf.EM_NONE
}

// Keys that only one architecture writes into VMCOREINFO (arch_crash_save_vmcoreinfo in arch/*).
var machineKeys = []struct {
	machine elf.Machine
	keys    []string
}{
	{elf.EM_X86_64, []string{"NUMBER(pgtable_l5_enabled)", "SYMBOL(init_top_pgt)", "SYMBOL(init_level4_pgt)", "NUMBER(sme_mask)"}},
	{elf.EM_AARCH64, []string{"NUMBER(kimage_voffset)", "NUMBER(TCR_EL1_T1SZ)"}},
	{elf.EM_RISCV, []string{"NUMBER(phys_ram_base)", "NUMBER(KERNEL_LINK_ADDR)"}},
	{elf.EM_S390, []string{"SYMBOL(lowcore_ptr)"}},
	{elf.EM_PPC64, []string{"SYMBOL(vmemmap_list)", "SYMBOL(cur_cpu_spec)"}},
}

// loongarchImage is the top of all addresses of LoongArch's kernel image (CACHE_BASE in
// arch/loongarch/include/asm/addrspace.h). It distinguishes LoongArch from MIPS, whose registers have the same size.
const loongarchImage = 0x9000

func (i *Info) machineOfText() elf.Machine {
	for _, m := range machineKeys {
		for _, key := range m.keys {
			if _, ok := i.VMCOREINFO.String(key); ok {
				return m.machine
			}
		}
	}
	if stext, ok := i.VMCOREINFO.Symbol("_stext"); ok && stext>>48 == loongarchImage && i.ByteOrder != binary.BigEndian {
		return elf.EM_LOONGARCH
	}
	return elf.EM_NONE
}
