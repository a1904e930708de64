package machine_test

import (
	"encoding/binary"
	"testing"
	"time"

	"github.com/corehaul/corehaul/kernel"
	"github.com/corehaul/corehaul/kernel/kerneltest"
	"github.com/corehaul/corehaul/machine"
	"github.com/corehaul/corehaul/mem"
	"github.com/corehaul/corehaul/uts"
	"github.com/corehaul/corehaul/vmcore"
	"github.com/corehaul/corehaul/vmcore/vmcoretest"
)

var le, be = binary.LittleEndian, binary.BigEndian

// inMemory is what init_uts_ns of the made-up machine says.
var inMemory = uts.Name{
	Sysname: "Linux", Nodename: "memory", Release: "6.1.0-memory", Version: "#1 memory", Machine: "x86_64", Domainname: "memory.example",
}

// kernelWith is a kernel whose init_uts_ns says u.
func kernelWith(t *testing.T, u uts.Name) *kernel.Kernel {
	t.Helper()
	m := kerneltest.NewX86(4)
	m.SetUtsname(m.Image(0x1000), 4, u)
	k, err := kernel.New(m.Config())
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// infoOf is a file whose header says u, and whose VMCOREINFO has text.
func infoOf(u uts.Name, order vmcoretest.Order, text string) *vmcore.Info {
	i := &vmcore.Info{ByteOrder: order, Utsname: u, Machine: vmcore.MachineNamed(u.Machine), PageSize: 4096, CurrentCPU: -1}
	i.AddNotes(append(vmcoretest.VMCOREINFO(order, "PAGESIZE=4096\n"+text), vmcoretest.Prstatus(order, 1, nil)...))
	return i
}

// TestWhichUtsnameWins: each field is that of memory where it makes sense, else that of the
// header, else what VMCOREINFO and the notes tell.
func TestWhichUtsnameWins(t *testing.T) {
	header := uts.Name{Sysname: "Linux", Nodename: "header", Release: "6.1.0-header", Version: "#1 header", Machine: "x86_64", Domainname: "header.example"}
	const text = "OSRELEASE=6.1.0-text\n"
	damaged, empty := inMemory, inMemory
	damaged.Sysname, empty.Release = "Linuy", ""
	nameless := inMemory
	nameless.Nodename, nameless.Version = "", ""
	for _, tc := range []struct {
		name   string
		memory *uts.Name
		header uts.Name
		order  vmcoretest.Order
		text   string
		want   uts.Name
	}{
		{"memory", &inMemory, header, le, "OSRELEASE=6.1.0-memory\n", inMemory},
		{"memory, without OSRELEASE", &inMemory, header, le, "", inMemory},
		{"memory that contradicts VMCOREINFO", &inMemory, header, le, text, header},
		{"memory that is damaged", &damaged, header, le, text, header},
		{"memory without a release", &empty, header, le, text, header},
		{"fields that memory leaves empty", &nameless, header, le, "", uts.Name{
			Sysname: "Linux", Nodename: "header", Release: "6.1.0-memory", Version: "#1 header", Machine: "x86_64", Domainname: "memory.example",
		}},
		{"header alone", nil, header, le, text, header},
		{"nothing but notes", nil, uts.Name{}, le, text, uts.Name{Sysname: "Linux", Release: "6.1.0-text", Machine: "x86_64"}},
		{"no utsname, on a big-endian machine", nil, uts.Name{}, be, text, uts.Name{Sysname: "Linux", Release: "6.1.0-text", Machine: "s390x"}},
		{"QEMU", &inMemory, uts.Name{Machine: "x86_64"}, le, "", inMemory},
		{"QEMU, s390x", nil, uts.Name{Machine: "S390X"}, be, text, uts.Name{Sysname: "Linux", Release: "6.1.0-text", Machine: "s390x"}},
		{"QEMU, ppc64le", nil, uts.Name{Machine: "PPC64"}, le, text, uts.Name{Sysname: "Linux", Release: "6.1.0-text", Machine: "ppc64le"}},
		{"QEMU, a machine without a name", nil, uts.Name{Machine: "Unknown"}, le, "NUMBER(phys_ram_base)=1\n", uts.Name{Sysname: "Linux", Machine: "riscv64"}},
		{"a header of ours", nil, uts.Name{Sysname: "Linux", Release: "(unknown)", Version: "(unknown)", Machine: "x86_64"}, le, text, uts.Name{
			Sysname: "Linux", Release: "6.1.0-text", Machine: "x86_64",
		}},
		{"a machine that is not known", nil, uts.Name{Machine: "sparc64"}, be, "SYMBOL(x)=1\n", uts.Name{Sysname: "Linux", Machine: "s390x"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var k *kernel.Kernel
			if tc.memory != nil {
				k = kernelWith(t, *tc.memory)
			}
			if got := machine.Utsname(infoOf(tc.header, tc.order, tc.text), k); got != tc.want {
				t.Errorf("got %+v\nwant %+v", got, tc.want)
			}
		})
	}
}

// TestFacts: what the header of a kdump-compressed file says beside utsname is kept, and
// where it says nothing notes and memory do.
func TestFacts(t *testing.T) {
	info := infoOf(uts.Name{Machine: "s390x"}, be, "")
	info.NrCPUs, info.CurrentCPU, info.DumpLevel, info.PhysBase, info.ExcludedVmemmap = 8, 5, 31, 0x1000, true
	info.Timestamp = time.Unix(1700000000, 5000).UTC()
	f := machine.FactsOf(info, nil)
	if f.NrCPUs != 8 || f.CurrentCPU != 5 || f.DumpLevel != 31 || !f.BigEndian || !f.ExcludedVmemmap || *f.PhysBase != 0x1000 || f.CrashTime != info.Timestamp {
		t.Errorf("%+v", f)
	}
	info = infoOf(uts.Name{}, le, "CRASHTIME=1700000009\n")
	info.Timestamp = time.Unix(1700000000, 0)
	f = machine.FactsOf(info, nil)
	if f.NrCPUs != 1 || f.CurrentCPU != -1 || f.BigEndian || f.PhysBase != nil || f.CrashTime.Unix() != 1700000009 {
		t.Errorf("%+v", f)
	}
	if f = machine.FactsOf(info, kernelWith(t, inMemory)); f.PhysBase == nil {
		t.Error("no phys_base of the kernel's")
	}
}

// buggy is memory whose reader has a bug.
type buggy struct {
	kernel.PhysReader
	bug bool
}

func (b *buggy) ReadPhys(p []byte, a mem.PhysAddr) error {
	if b.bug {
		panic("a bug")
	}
	return b.PhysReader.ReadPhys(p, a)
}

// TestBugIsNoCrash: a bug in what reads kernel memory is an error, and tells no facts.
func TestBugIsNoCrash(t *testing.T) {
	m := kerneltest.NewX86(4)
	m.SetUtsname(m.Image(0x1000), 4, inMemory)
	cfg := m.Config()
	memory := &buggy{PhysReader: cfg.Memory}
	cfg.Memory = memory
	k, err := kernel.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	memory.bug = true
	info := infoOf(uts.Name{}, le, "OSRELEASE=6.1\nSYMBOL(swapper_pg_dir)=ffffffff81200000\nNUMBER(phys_base)=0\n")
	if u := machine.Utsname(info, k); u.Release != "6.1" || u.Nodename != "" {
		t.Errorf("%+v", u)
	}
	if k, err := machine.Kernel(memory, info); err == nil || k != nil {
		t.Errorf("got %v, %v, want the bug as an error", k, err)
	}
}
