package kernel_test

import (
	"debug/elf"
	"encoding/binary"
	"testing"

	"github.com/corehaul/corehaul/kernel"
	"github.com/corehaul/corehaul/kernel/kerneltest"
	"github.com/corehaul/corehaul/mem"
)

// TestUtsnameOfLinearImages reads init_uts_ns on machines whose page tables are not read.
func TestUtsnameOfLinearImages(t *testing.T) {
	const pa = mem.PhysAddr(0x1234000)
	for _, tc := range []struct {
		name    string
		machine elf.Machine
		order   binary.ByteOrder
		page    int
		va      uint64
		numbers map[string]int64
		found   bool
	}{
		{"ppc64le", elf.EM_PPC64, binary.LittleEndian, 65536, 0xc000000000000000 + uint64(pa), nil, true},
		{"ppc64", elf.EM_PPC64, binary.BigEndian, 65536, 0xc000000000000000 + uint64(pa), nil, true},
		{"ppc64, module area", elf.EM_PPC64, binary.BigEndian, 65536, 0xd000000000000000 + uint64(pa), nil, false},
		{"s390x", elf.EM_S390, binary.BigEndian, 4096, uint64(pa), nil, true},
		{"s390x, image elsewhere", elf.EM_S390, binary.BigEndian, 4096, 0x3ffe0000000 + uint64(pa), nil, false},
		{"loongarch64", elf.EM_LOONGARCH, binary.LittleEndian, 16384, 0x9000000000000000 + uint64(pa), nil, true},
		{"riscv64", elf.EM_RISCV, binary.LittleEndian, 4096, 0xffffffff80000000 + uint64(pa), map[string]int64{"va_kernel_pa_offset": -0x80000000}, true},
		{"riscv64, older", elf.EM_RISCV, binary.LittleEndian, 4096, 0xffffffff80000000 + uint64(pa), nil, false},
		{"x86_64 without page tables", elf.EM_X86_64, binary.LittleEndian, 4096, uint64(pa), nil, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var memory kerneltest.Memory
			uts := make([]byte, 6*65)
			for i, s := range []string{"Linux", "node", "6.1.0", "#1 SMP", "machine", "(none)"} {
				copy(uts[i*65:], s)
			}
			memory.Write(pa+4, uts)
			info := kerneltest.NewInfo()
			info.Symbols["init_uts_ns"] = tc.va
			for name, n := range tc.numbers {
				info.Numbers[name] = n
			}
			k, err := kernel.New(kernel.Config{Memory: &memory, Info: info, Machine: tc.machine, ByteOrder: tc.order, PageSize: tc.page})
			if err != nil {
				t.Fatal(err)
			}
			u, err := k.Utsname()
			if (err == nil) != tc.found || tc.found && (u.Version != "#1 SMP" || u.Nodename != "node") {
				t.Errorf("got %+v, %v, want it found: %v", u, err, tc.found)
			}
		})
	}
}
