package lab

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"strings"

	"github.com/corehaul/corehaul/e2e/lab/guestcfg"
)

// A Scenario is a machine and the way in which it crashes. Except for Kernel, the zero
// value of each field is what most tests need.
type Scenario struct {
	// Kernel is one of KernelNames.
	Kernel string
	// CPU is qemu64 (4-level page tables, the default) or max (5-level where
	// the kernel has it) on x86_64, cortex-a57 (48-bit, the default) or max
	// (pointer authentication; 52-bit LPA2 with 6.12 and later) on arm64. A cortex-a57
	// has no pages of 16 KiB; a cortex-a76 has, with 47 bits.
	CPU string
	// MemMiB is the size of the memory, 1024 by default. It may be much more than the
	// host has, as long as the guest does not use it.
	MemMiB int
	// CrashkernelMiB is the memory reserved for the capture kernel: by default 192, 256
	// on arm64, 512 from 32 GiB of memory on.
	CrashkernelMiB int
	// Kexec is "c" for kexec_load(2) (the default) or "s" for
	// kexec_file_load(2), which Debian's arm64 kernels do not have.
	Kexec string
	// Busy fills about 60 % of the memory with many kinds of page frames: page cache
	// with and without buffers, anonymous memory, huge pages, shared memory,
	// copied-on-write memory, dirty free pages, a balloon.
	Busy bool
	// Crash is "sysrq" (the default) or "init-exit". Panic knows more, see Panics.
	Crash string
	// Nodename is the name of the machine, guestcfg.Hostname by default.
	Nodename string `json:",omitempty"` // left out, so that it changes no hash of the machines that have none
	// CrashCPU is the CPU on which a panic of Panic happens, 0 or 1. "nmi" is for CPU 0 only.
	CrashCPU int `json:",omitempty"`
	// Append is added to the command line of the system kernel.
	Append string
}

// withDefaults sets the defaults.
func (s Scenario) withDefaults() Scenario {
	arm := s.arm64()
	setDefault(&s.CPU, choose(arm, "cortex-a57", "qemu64"))
	setDefault(&s.MemMiB, 1024)
	setDefault(&s.Kexec, guestcfg.KexecLoad)
	setDefault(&s.Crash, "sysrq")
	const bigMiB = 32 << 10
	if s.MemMiB >= bigMiB {
		setDefault(&s.CrashkernelMiB, 512)
	}
	setDefault(&s.CrashkernelMiB, choose(arm, 256, 192))
	return s
}

func setDefault[T comparable](p *T, value T) {
	var zero T
	if *p == zero {
		*p = value
	}
}

func choose[T any](cond bool, yes, no T) T {
	if cond {
		return yes
	}
	return no
}

func (s Scenario) arm64() bool { return strings.Contains(s.Kernel, "-arm64") }

// Name identifies a scenario in messages and file names: 6.1-qemu64-1024M-c-idle.
func (s Scenario) Name() string {
	s = s.withDefaults()
	name := fmt.Sprintf("%s-%s-%dM-%s-%s", s.Kernel, s.CPU, s.MemMiB, s.Kexec, choose(s.Busy, "busy", "idle"))
	if s.Crash != "sysrq" {
		name += "-" + s.Crash
	}
	if plain := (Scenario{Kernel: s.Kernel, MemMiB: s.MemMiB}).withDefaults(); s.CrashkernelMiB != plain.CrashkernelMiB {
		name += fmt.Sprintf("-crashkernel%dM", s.CrashkernelMiB)
	}
	if s.Nodename != "" {
		name += "-" + s.Nodename
	}
	if s.CrashCPU != 0 {
		name += fmt.Sprintf("-cpu%d", s.CrashCPU)
	}
	if s.Append != "" {
		name += "-append" + s.hash("")[:6]
	}
	return name
}

// hash covers everything that decides what a dump of the scenario contains.
func (s Scenario) hash(release string) string {
	b, err := json.Marshal(s.withDefaults())
	if err != nil {
		panic(err) // a struct of strings and numbers
	}
	h := sha256.Sum256(fmt.Appendf(nil, "lab %d kernel %s scenario %s", labVersion, release, b))
	return hex.EncodeToString(h[:])[:12]
}

// Matrix is the set of machines on which the kept pages of every dump level are
// compared: three x86_64 kernels with each depth of page tables they have, both
// ways of loading the capture kernel, idle and busy; the generic flavour once;
// arm64 with 48 and 52-bit addresses; arm64 with pages of 16 KiB, with 47 and 52.
func Matrix() []Scenario {
	var all []Scenario
	for _, m := range []struct{ kernel, cpu string }{
		{"6.1", "qemu64"},
		{"6.12", "qemu64"},
		{"5.10", "qemu64"},
		{"6.1", "max"},
		{"6.12", "max"},
	} {
		for _, kexec := range []string{guestcfg.KexecLoad, guestcfg.KexecFileLoad} {
			all = append(all,
				Scenario{Kernel: m.kernel, CPU: m.cpu, Kexec: kexec},
				Scenario{Kernel: m.kernel, CPU: m.cpu, Kexec: kexec, Busy: true, MemMiB: busyMiB})
		}
	}
	return append(all,
		// Only on this kernel can pages be poisoned.
		Scenario{Kernel: "6.1-generic", Busy: true, MemMiB: busyMiB},
		Scenario{Kernel: "6.1-arm64"},
		Scenario{Kernel: "6.1-arm64", Busy: true, MemMiB: busyMiB},
		Scenario{Kernel: "6.12-arm64"},
		Scenario{Kernel: "6.12-arm64", CPU: "max"},
		Scenario{Kernel: "6.12-arm64", CPU: "max", Busy: true, MemMiB: busyMiB},
		Scenario{Kernel: "backports-arm64-16k", CPU: "cortex-a76"},
		Scenario{Kernel: "backports-arm64-16k", CPU: "max", Busy: true, MemMiB: busyMiB},
	)
}

// busyMiB is enough for thousands of pages of every kind.
const busyMiB = 1536
