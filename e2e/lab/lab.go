// Package lab is the crash lab: real Debian kernels that panic in QEMU, and judges, the
// programs that have to be able to read dump files.
//
// CaptureELF returns a full ELF copy of the /proc/vmcore of a crashed kernel, with records
// of that kernel from just before. Panic returns a small dump of a panic of any kind, most of them made by a kernel module of
// the lab (crashmod). RunSender boots a kernel, lets it panic and starts a
// capture initramfs of the caller. StartInstalled boots a Debian with systemd and a shell.
// Crash, Makedumpfile and ReadAllPages run the judges. Everything fetched or made is kept
// in a cache directory, $COREHAUL_LAB_CACHE or /var/cache/corehaul-lab:
//
//	apt/       package lists of other Debian suites and architectures
//	kernels/   unpacked kernel packages, with modules.dep
//	debug/     vmlinux with DWARF
//	judges/    crash, makedumpfile and their libraries
//	kexec/     kexec(8) with its libraries, for the guests
//	headers/   kernel headers, to build the module that crashes
//	dumps/     captured dumps
//	panics/    captured panics, 20 MB each
//	states/    machines that were stopped just before their panic, while panics are captured
//	crash/     what crash said of dumps
//	installed/ disks of installed guests
//	levels/    what makedumpfile kept of the dumps at each level
//	locks/     one lock file for each entry
//	tmp/       entries that are being made
//
// An entry is made in tmp and renamed, under a lock. So half an entry is never seen, and
// processes may share the cache. A dump's name contains a hash of the scenario, the kernel
// release and labVersion. Nothing else makes an entry stale: delete the directory to fetch
// newer kernels.
//
// The lab needs root, for QEMU's performance and the disks of installed guests, the
// packages that e2e/install.sh installs, and the machine's apt sources, which name the
// mirror. It trusts sizes that guests report: it is for tests and must not be linked into
// the product. Functions are safe for concurrent use. Each QEMU runs with two virtual CPUs
// under TCG.
package lab

import "errors"

// labVersion is part of the name of every cached dump. Increase it when a change of the lab
// changes the contents of dumps.
const labVersion = 2

var (
	// ErrNoKernel means that the name is none of KernelNames, or that there is no
	// package for it.
	ErrNoKernel = errors.New("no such kernel")
	// ErrGuest means that the virtual machine ended too early. The error's text ends
	// with the last lines of its console.
	ErrGuest = errors.New("guest failed")
)
