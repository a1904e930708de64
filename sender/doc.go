// Package sender gets a dump out of a capture kernel: it opens a vmcore, decides
// which pages to send and in which order, and sends them to a receiver over the
// protocol of package protocol.
//
//	image --Source--> classifier --Plan--> tiers, chunks
//	   --> read, find zero pages, checksum, compress --> frames --> TLS or SSH
//
// The plan is a pure function of the dump file and the dump level. A restarted sender
// computes the same plan and resumes without any state of its own, because the receiver
// says which chunks it has.
//
// Memory does not depend on the size of the machine. The encoded plan is kept up to a
// budget; a larger plan is computed again for each tier. Page contents are in a fixed
// number of chunk buffers, one for each worker and two more. Pages are read again each
// time they are sent.
//
// A failure is fatal only if no dump is possible. If the kernel is unknown or the page
// filter fails, all pages are kept, and a warning says so. If the log cannot be read, the
// receiver is told why. A page that cannot be read (EIO from hardware poison that the
// kernel did not know of, a truncated file) is left out of its chunk, counted and
// reported, and makes the dump partial. The sender never invents contents: a zero page in
// a dump was zero in memory.
//
// There may be several targets. Send prefers the one that has most of the dump while it
// answers. It passes over targets that fail, refuse or make no progress, and tries them
// again later; see targets. All times are monotonic, so a wrong clock changes nothing.
//
// Dump files and receivers are hostile input. A Source is safe for concurrent use except
// for Close. Send runs one dump at a time.
//
// Targets are tls://HOST:PORT, with a client certificate and a pinned receiver, and
// ssh://USER@HOST[:PORT][/PATH], with a key and a pinned host (package sshdial). Over SSH,
// the protocol runs in the subsystem corehaul. If the server has none, it runs to a depot
// in this process, which writes the dump over SFTP. nfs:// and file:// lead to such a depot
// too, for an NFS server and a local directory.
package sender
