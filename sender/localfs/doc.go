// Package localfs is a directory of a mounted file system as the target of a dump: file:///PATH.
//
//	sender session <--protocol, in memory--> sender/depot --> dumpdir.Writer --> localfs.FS
//
// It opens regular files only, and nothing outside of the directory: no link leads out of it, whoever can write there.
// /var/crash of some distributions is open to all users. The names of dumps are those of package depot, and the lock is that of
// dumpdir.OS, so a receiver on the same directory and a sender exclude each other.
//
// An FS is safe for concurrent use.
package localfs
