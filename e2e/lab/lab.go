// Package lab is the crash lab: real Debian kernels that really panic in QEMU,
// and the programs whose word counts on what a dump file must look like.
//
// CaptureELF gives a full ELF copy of the /proc/vmcore of a crashed kernel with
// what that kernel said about itself just before; RunSender boots a kernel,
// lets it panic and starts a capture initramfs of the caller's; StartInstalled boots
// a Debian with systemd and a shell; Crash,
// Makedumpfile and ReadAllPages ask the judges. Everything fetched or made is
// kept in a cache directory, $COREHAUL_LAB_CACHE or /var/cache/corehaul-lab:
//
//	apt/       package lists of other Debian suites and architectures
//	kernels/   unpacked kernel packages, with modules.dep
//	debug/     vmlinux with DWARF
//	judges/    crash, makedumpfile and their libraries
//	kexec/     kexec(8) with its libraries, for the guests
//	dumps/     captured dumps
//	installed/ disks of installed guests
//	levels/    what makedumpfile kept of the dumps at each level
//	locks/     one lock file for each entry; tmp/ holds what is being made
//
// An entry is made in tmp and renamed, under a lock, so half an entry is never
// seen and processes may share the cache. A dump's name contains a hash of the
// scenario, the kernel release and labVersion; nothing else makes an entry
// stale, so delete the directory to fetch newer kernels.
//
// It needs root for QEMU's performance and to make the disks of installed guests, the packages that
// e2e/install.sh installs, and the machine's apt sources, from which it takes
// the mirror. It trusts what comes out of the guests as far as sizes go: it is
// for tests and must not be linked into the product. Functions may be called
// from several goroutines; each QEMU runs with two virtual CPUs under TCG.
package lab

import "errors"

// labVersion is part of the name of every cached dump. Raise it when a change
// to the lab changes what a dump contains.
const labVersion = 2

var (
	// ErrNoKernel means that the name is none of KernelNames, or that no
	// package for it is to be had.
	ErrNoKernel = errors.New("no such kernel")
	// ErrGuest means that the virtual machine ended without doing its work;
	// the error's text ends with the last lines of its console.
	ErrGuest = errors.New("guest failed")
)
