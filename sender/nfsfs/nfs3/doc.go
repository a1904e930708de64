// Package nfs3 is a client of NFS version 3 (RFC 1813) and its companions: ONC RPC over TCP
// (RFC 5531), the portmapper (RFC 1833, version 2; 4 over IPv6) and MOUNT (RFC 1813, appendix I).
//
// The shapes of arguments and results and their XDR come from
// github.com/vmware/go-nfs-client, as far as that has them. The connection is our own,
// because that library's sends one call at a time, allocates what the server says, panics
// on short answers, and takes neither fragments of a record nor a port. Also from here
// are the procedures that it lacks (SETATTR, GETATTR, READDIR, FSSTAT, RENAME, guarded
// CREATE, unstable WRITE with its verifier, COMMIT with one), short reads and writes,
// "try again later" (NFS3ERR_JUKEBOX), and a supplementary group that is the caller's:
// the library claims group 0.
//
// Nothing is ever sent twice, apart from calls that the server answered with JUKEBOX, that
// is, did not do. When the connection ends, all calls fail, and what they did is unknown.
// So no answer can be that to a repetition.
//
// The server is not trusted: a record has at most maxRecord bytes, and its contents decide
// nothing but the call that they answer. A Client is safe for concurrent use.
package nfs3
