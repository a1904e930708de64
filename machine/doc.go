// Package machine says what a dump file knows about the crashed machine: the kernel in its memory, the kernel's
// utsname, and the facts for the headers of a kdump-compressed file. It connects dump formats and kernel memory,
// which do not know each other. So all commands say the same about a dump.
//
// The input comes from a crashed machine. Contents of a dump cause no error here: a value that makes no sense counts
// as unknown, and the next source is used. A panic in the code that reads kernel memory counts as an unknown kernel.
package machine
