package machine

import (
	"cmp"
	"debug/elf"
	"encoding/binary"
	"time"

	"github.com/corehaul/corehaul/kernel"
	"github.com/corehaul/corehaul/vmcore"
)

// Facts is what a dump tells of its machine beside memory and notes.
type Facts struct {
	Utsname    vmcore.Utsname
	CrashTime  time.Time // CRASHTIME of VMCOREINFO, else when the file was made; zero when unknown
	NrCPUs     int       // at least 1
	CurrentCPU int       // the one that panicked; -1 when unknown
	DumpLevel  int       // what was left out of the file, as of makedumpfile -d; -1 when unknown
	BigEndian  bool
	// PhysBase belongs into phys_base of a kdump sub header; nil when unknown.
	PhysBase *uint64
	// ExcludedVmemmap: see vmcore.Info.
	ExcludedVmemmap bool
}

// FactsOf returns what info tells, and the memory that k understands; k may be nil.
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

// physBase is what the file's own header says, else what the kernel says.
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

// maxField is what a field of utsname holds, in bytes.
const maxField = 64

// Utsname returns how the kernel names itself. Each field is that of init_uts_ns in memory
// where that makes sense, else that of the file's header, else what VMCOREINFO (release)
// and the notes (machine) say, else empty. k may be nil.
func Utsname(info *vmcore.Info, k *kernel.Kernel) vmcore.Utsname {
	u := inMemory(info, k)
	h := inHeader(info)
	release, _ := info.VMCOREINFO.String("OSRELEASE")
	return vmcore.Utsname{
		Sysname:    cmp.Or(u.Sysname, h.Sysname, "Linux"),
		Nodename:   cmp.Or(u.Nodename, h.Nodename),
		Release:    cmp.Or(u.Release, h.Release, release[:min(len(release), maxField)]),
		Version:    cmp.Or(u.Version, h.Version),
		Machine:    cmp.Or(u.Machine, h.Machine, vmcore.MachineName(info.Machine, info.ByteOrder)),
		Domainname: cmp.Or(u.Domainname, h.Domainname),
	}
}

// inMemory returns what init_uts_ns says, nothing when that cannot be: the kernel writes
// the release of both init_uts_ns and VMCOREINFO when it boots, and never again.
func inMemory(info *vmcore.Info, k *kernel.Kernel) (u vmcore.Utsname) {
	if k == nil {
		return u
	}
	defer func() {
		if recover() != nil {
			u = vmcore.Utsname{} // a bug in what reads kernel memory
		}
	}()
	m, err := k.Utsname()
	release, ok := info.VMCOREINFO.String("OSRELEASE")
	if err != nil || m.Release == "" || ok && release != m.Release {
		return vmcore.Utsname{}
	}
	return vmcore.Utsname(m)
}

// inHeader returns what the file's own utsname says.
func inHeader(info *vmcore.Info) vmcore.Utsname {
	h := info.Utsname
	h.Machine = headerMachine(info)
	for _, field := range []*string{&h.Release, &h.Version} {
		if *field == vmcore.UnknownField {
			*field = ""
		}
	}
	return h
}

// headerMachine is the machine of the file's own utsname in the words of uname. QEMU writes
// S390X, PPC64 whatever the byte order, or Unknown.
func headerMachine(info *vmcore.Info) string {
	switch m := vmcore.MachineNamed(info.Utsname.Machine); {
	case m != elf.EM_NONE:
		return vmcore.MachineName(m, info.ByteOrder)
	case info.Machine != elf.EM_NONE || info.Utsname.Machine == "Unknown":
		return ""
	}
	return info.Utsname.Machine
}
