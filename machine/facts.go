package machine

import (
	"cmp"
	"debug/elf"
	"encoding/binary"
	"time"

	"github.com/corehaul/corehaul/kernel"
	"github.com/corehaul/corehaul/uts"
	"github.com/corehaul/corehaul/vmcore"
)

// Facts is what a dump says about its machine, apart from memory and notes.
type Facts struct {
	Utsname    uts.Name
	CrashTime  time.Time // CRASHTIME of VMCOREINFO, else the time in the file's header; zero if unknown
	NrCPUs     int       // at least 1
	CurrentCPU int       // the CPU that panicked; -1 if unknown
	DumpLevel  int       // as in makedumpfile -d; -1 if unknown
	BigEndian  bool
	// PhysBase is phys_base for a kdump sub header; nil if unknown.
	PhysBase *uint64
	// ExcludedVmemmap: see vmcore.Info.
	ExcludedVmemmap bool
}

// FactsOf returns the facts of info and of the memory that k understands. k may be nil.
func FactsOf(info *vmcore.Info, k *kernel.Kernel) Facts {
	return Facts{
		Utsname: Utsname(info, k), CrashTime: crashTime(info),
		NrCPUs: max(cmp.Or(info.NrCPUs, len(info.CPUs)), 1), CurrentCPU: info.CurrentCPU, DumpLevel: info.DumpLevel,
		BigEndian: info.ByteOrder == binary.BigEndian, PhysBase: physBase(info, k), ExcludedVmemmap: info.ExcludedVmemmap,
	}
}

func crashTime(info *vmcore.Info) time.Time {
	if t, ok := info.VMCOREINFO.CrashTime(); ok && t.Unix() > 0 {
		return t
	}
	return info.Timestamp
}

// physBase is the header's phys_base, else the kernel's.
func physBase(info *vmcore.Info, k *kernel.Kernel) *uint64 {
	base := info.PhysBase
	if base != 0 {
		return &base
	}
	if k == nil {
		return nil
	}
	if told, ok := k.PhysBase(); ok {
		return &told
	}
	return nil
}

// Utsname returns the kernel's utsname. Each field comes from the first source that has it: init_uts_ns in memory,
// the file's header, VMCOREINFO (release) or the notes (machine). k may be nil.
func Utsname(info *vmcore.Info, k *kernel.Kernel) uts.Name {
	u := inMemory(info, k)
	h := inHeader(info)
	release, _ := info.VMCOREINFO.String("OSRELEASE")
	return uts.Name{
		Sysname:    cmp.Or(u.Sysname, h.Sysname, "Linux"),
		Nodename:   cmp.Or(u.Nodename, h.Nodename),
		Release:    cmp.Or(u.Release, h.Release, release[:min(len(release), uts.MaxLen)]),
		Version:    cmp.Or(u.Version, h.Version),
		Machine:    cmp.Or(u.Machine, h.Machine, vmcore.MachineName(info.Machine, info.ByteOrder)),
		Domainname: cmp.Or(u.Domainname, h.Domainname),
	}
}

// inMemory returns init_uts_ns, or nothing if its release differs from that of VMCOREINFO: the kernel writes both
// once, at boot.
func inMemory(info *vmcore.Info, k *kernel.Kernel) (u uts.Name) {
	if k == nil {
		return u
	}
	defer func() {
		if recover() != nil {
			u = uts.Name{} // a bug in the code that reads kernel memory
		}
	}()
	m, err := k.Utsname()
	release, ok := info.VMCOREINFO.String("OSRELEASE")
	if err != nil || m.Release == "" || ok && release != m.Release {
		return uts.Name{}
	}
	return m
}

// inHeader returns the utsname of the file's header.
func inHeader(info *vmcore.Info) uts.Name {
	h := info.Utsname
	h.Machine = headerMachine(info)
	for _, field := range []*string{&h.Release, &h.Version} {
		if *field == uts.Unknown {
			*field = ""
		}
	}
	return h
}

// headerMachine is the machine field of the header's utsname, as uname prints it. QEMU writes S390X, PPC64 (for both
// byte orders) or Unknown.
func headerMachine(info *vmcore.Info) string {
	switch m := vmcore.MachineNamed(info.Utsname.Machine); {
	case m != elf.EM_NONE:
		return vmcore.MachineName(m, info.ByteOrder)
	case info.Machine != elf.EM_NONE || info.Utsname.Machine == "Unknown":
		return ""
	}
	return info.Utsname.Machine
}
