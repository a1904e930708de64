// Package elfcore reads and writes ELF cores of whole machines: /proc/vmcore in a
// capture kernel, /proc/kcore of a running one, and the files of QEMU's
// dump-guest-memory and of makedumpfile -E.
//
// Such a core is ELF64, type ET_CORE: PT_NOTE segments hold one NT_PRSTATUS per
// CPU and VMCOREINFO, PT_LOAD segments hold physical memory, their p_paddr being
// the physical address (fs/proc/vmcore.c, fs/proc/kcore.c, kexec-tools'
// kexec/crashdump-elf.c, QEMU's docs/dump). With more than 65534 program headers
// their number is in sh_info of section 0 (PN_XNUM). The segment of the kernel
// text repeats memory that another segment has; that is normal. 32-bit cores are
// not read.
//
// Where a PT_LOAD begins or ends within a page, the frame is there and the
// missing bytes read as zero, as makedumpfile has it (readpage_elf and
// create_1st_bitmap in its makedumpfile.c). Bytes between p_filesz and p_memsz
// were left out by whoever wrote the file and read as excluded; where one PT_LOAD has bytes and another such
// a hole, the bytes count.
//
// A [File] is safe for concurrent use and for hostile input: every size is
// checked, the memory for headers and notes is bounded. Cores that contradict
// themselves are refused; only for a live file of procfs the contradiction is
// passed over with a warning, because there a partly useful dump is all that can
// be had.
package elfcore
