// Package reservation tells whether the running kernel has reserved memory for a capture kernel, how much, and what to write
// into the boot configuration if it has not.
//
// The kernel reserves the memory when it boots, as crashkernel= on its command line says
// (Documentation/admin-guide/kdump/kdump.rst, kernel/crash_reserve.c). /sys/kernel/kexec_crash_size has the size of what it
// reserved, and /proc/iomem where. The package reads both, and the boot configuration below a root directory. It changes
// nothing, except in Boot.Write.
//
// The files belong to the machine itself. What they say is bounded and checked all the same. Values are not safe for
// concurrent change.
package reservation
