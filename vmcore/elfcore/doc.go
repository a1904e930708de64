// Package elfcore reads and writes ELF cores of whole machines: /proc/vmcore in a
// capture kernel, /proc/kcore of a running one, and the files of QEMU's
// dump-guest-memory and of makedumpfile -E.
//
// Such a core is ELF64, type ET_CORE: PT_NOTE segments hold one NT_PRSTATUS per
// Such a core is ELF64, type ET_CORE. PT_NOTE segments hold one NT_PRSTATUS for each CPU and VMCOREINFO. PT_LOAD
// segments hold physical memory at p_paddr (fs/proc/vmcore.c, fs/proc/kcore.c, kexec-tools' kexec/crashdump-elf.c,
// QEMU's docs/dump). With more than 65534 program headers their number is in sh_info of section 0 (PN_XNUM). The
// segment of the kernel text repeats memory of another segment. The package does not read 32-bit cores.
//
// If a PT_LOAD begins or ends within a page, the frame is present and its other bytes read as zero, as in
// makedumpfile (readpage_elf and create_1st_bitmap in makedumpfile.c). Bytes between p_filesz and p_memsz read as
// excluded, unless another PT_LOAD has these bytes.
//
// A [File] is safe for concurrent use and for hostile input: it checks every size, and bounds the memory for headers
// and notes. It refuses cores that contradict themselves, except live files of procfs: there it ignores the
// contradiction with a warning, because a partly useful dump is better than none.
package elfcore
