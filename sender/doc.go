// Package sender gets a dump out of a capture kernel: it opens a vmcore, decides
// which pages to send and in which order, and sends them to a receiver over the
// protocol of package protocol.
//
//	image --Source--> classifier --Plan--> tiers, chunks
//	   --> read, find zero pages, checksum, compress --> frames --> TLS or SSH
//
// The plan is a pure function of the dump file and the dump level, so a sender that
// was restarted comes to the same one and resumes without any state of its own: the
// receiver says what it has.
//
// Memory is constant whatever the size of the machine: the plan is kept in its coded
// form up to a budget and walked anew for every tier beyond that; page contents live
// in a fixed number of chunk buffers, one for each worker and two on their way.
// Page contents are read once for each time that they are sent.
//
// Nothing is fatal that a dump can do without. A kernel that cannot be understood, a
// page filter that fails: all pages are kept, and a warning says so. A log that
// cannot be read: the receiver is told why. A page that cannot be read (EIO from
// hardware poison that the kernel did not know of, a truncated file) is left out of
// its chunk, counted and reported, and the dump is then partial for that reason:
// contents are never invented, and a zero page in a dump is one that was zero.
//
// There may be several targets. Send keeps to the one that has most of the dump while it
// answers, passes over those that fail, refuse or move nothing on, and comes back to
// them; see targets. All times are monotonic, so a clock that is wrong or jumps changes
// nothing.
//
// Dump files and receivers are both treated as hostile input. A Source is safe for
// concurrent use except for Close; Send runs one dump at a time.
//
// Targets are tls://HOST:PORT, with a client certificate and a pinned receiver, and
// ssh://USER@HOST[:PORT][/PATH], with a key and a pinned host (package sshdial): there the
// protocol runs over the subsystem corehaul, or, where there is none, no further than to a
// depot in this process, which writes the dump over SFTP.
package sender
