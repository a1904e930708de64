// Package dumpcopy copies a dump file that another program wrote (makedumpfile, cp, QEMU) into a dump directory: what the file says
// of its machine, the kernel log in its memory, the plan, the pages, and the seal. It also knows the names that kdump gives to files.
//
// A page is copied only after it was decoded. What cannot be decoded, and what the file lacks, is left out and counted, and the dump
// is partial then. A file of which nothing can be read becomes a dump of its log alone. The caller says how much may be
// written, and keeps the file itself where the copy may differ from it.
//
// All input is hostile. Memory does not grow with the size of a file. A Copy and a Source are for one goroutine.
package dumpcopy
