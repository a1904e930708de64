// Package machine says what a dump file tells of the machine that crashed: the kernel in
// its memory, how that kernel names itself, and what the headers of a kdump-compressed
// file say beside its pages. It brings dump formats and kernel memory together, which know
// nothing of each other, so that whoever stores, sends or shows a dump says the same of it.
//
// All of it comes from a crashed machine. Nothing here fails for what a dump says: what
// makes no sense counts as not told, and the next source is asked. A bug in what reads
// kernel memory counts as not understanding the kernel.
package machine
