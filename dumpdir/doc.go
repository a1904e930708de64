// Package dumpdir keeps the directory of one dump: a writer that can be killed
// at any instant and resumed, a reader, and a verifier.
//
// The files are
//
//	vmcore            kdump-compressed; vmcore-incomplete until the dump is sealed
//	vmcore-dmesg.txt  the kernel log of the system kernel, durable before any page
//	manifest.json     what the dump is: see Manifest
//	chunks            the journal: docs/layout.md; journalformat.go and journalrecords.go
//	SHA256SUMS        written by the seal, checked by sha256sum -c
//
// The journal is the truth. The front of vmcore (headers, bitmaps, page descriptors) is a pure function of it. So
// Resume writes a front again that a power cut has torn (front.go), and the verifier knows every byte of the file.
// The order of fsyncs makes it durable: page data first, then the journal records that name it, then Commit returns
// (commit.go).
//
// All readers of stored pages use Image, which compares the pages with the journal. If other files say that a dump
// was sealed and its journal does not, the dump is damaged, and nothing writes to it.
//
// A killed writer leaves the files above, possibly a file named *.tmp, and possibly page data behind the end that the
// journal knows. Resume removes the file and cuts off the data (resume.go, journalrecovery.go).
//
// Everything works on a small file system interface, FS. OS is the local one. Everything that is read back (journal,
// manifest, vmcore) is parsed as hostile input: sizes are checked before use, and nothing panics. Plans and journals
// are streamed, so memory does not grow with the dump.
//
// A Writer may be used by several goroutines. A Dump is safe for concurrent use.
package dumpdir
