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
// The journal is the truth. The front of vmcore (headers, bitmaps, page
// descriptors) is a pure function of it, so a front torn by a power cut is simply
// written again (front.go), and the verifier can say of every byte of the file what it has to
// be. Order makes it durable: page data is fsynced before the journal records that
// name it are written, and those are fsynced before Commit returns (commit.go).
//
// Whoever reads pages of a stored dump does so through Image, which compares them with the journal. A dump that was sealed, as
// its other files say, and whose journal has lost the seal is damaged: nothing writes to it.
//
// What a writer leaves behind when it is killed: the files above, possibly one
// named *.tmp, possibly page data behind the end that the journal knows. Resume
// removes the one and cuts off the other (resume.go, journalrecovery.go).
//
// All of it runs over a small file system interface, FS, with OS for the local one.
// Everything read back (journal, manifest, vmcore) is parsed as hostile input: sizes
// are checked before they are used, memory stays bounded, nothing panics. Memory does not grow
// with the dump: plans and journals are streamed.
//
// A Writer may be used by several goroutines. A Dump is safe for concurrent use.
package dumpdir
