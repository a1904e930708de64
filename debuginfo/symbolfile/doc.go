// Package symbolfile reads a file with the debugging information of a kernel image or a module: its build id, and the lines of the source
// that an address of a crashed kernel comes from, with the functions that were inlined there.
//
// It reads 64-bit little-endian ELF files with DWARF 2 to 5, also compressed sections (SHF_COMPRESSED). Files are mapped, so that of a vmlinux only
// what is asked for comes into memory: .debug_aranges says which compile unit has an address. A module is a relocatable file (ET_REL). Its
// sections have no addresses of their own, so it is read whole, up to 1 GiB, once the addresses of its sections are known. It does not read split DWARF
// (.dwo) and supplementary files (dwz).
//
// Files are hostile input. Numbers in them that would decide an allocation or a loop are checked first, because debug/elf and debug/dwarf promise
// nothing about such files. A panic of theirs counts as an error of the file, and so does a file that is cut off while it is read.
// A File belongs to one goroutine.
package symbolfile
