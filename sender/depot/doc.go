// Package depot is the receiving side of the protocol for a place without a receiver. It
// runs in the sender's process and writes the dump directory through a dumpdir.FS.
//
//	sender session <--protocol, in memory--> depot --> dumpdir.Writer --> SFTP, NFS, disk
//
// So all rules of a session hold here too: the log first, resume from what is durable,
// windows, deadlines, fail-over. The directory of a dump is dumps/HOST/TIME-ID below the
// root, as in a receiver's store, so a receiver can use the root later. HOST is the
// nodename of the crashed kernel, because no transport proves a name. A dump has one plan
// here. Another plan is refused as long as the dump exists.
//
// What lies there is hostile input, as for every dumpdir.
package depot
