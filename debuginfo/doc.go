// Package debuginfo finds the files with the debugging information of a kernel and its modules by their build ids: first in
// directories of this machine, then in a cache, then on debuginfod servers.
//
// A file counts only if its own GNU build id is the one that is wanted, if all of its sections lie in it, and if it has DWARF. A
// build id is no checksum: whoever can write to a debug directory or runs a server of DEBUGINFOD_URLS decides what lines are shown.
//
// # What it leaves behind
//
// The cache is one directory, of mode 0700. It holds, for a build id in hexadecimal:
//
//	HEX.debug    a complete file; its modification time is that of its last use
//	HEX.part     a download that was interrupted, or that runs: then it is locked (flock)
//	HEX.from     where the .part comes from, in JSON
//
// Who uses a HEX.debug has a shared lock on it. What nobody has locked may be removed at any time, by hand too. When the files exceed the
// limit, those go first whose use is longest ago.
//
// # Servers
//
// The protocol is that of debuginfod(8): GET URL/buildid/HEX/debuginfo. The variables are those of debuginfod-find(1):
// DEBUGINFOD_URLS, DEBUGINFOD_TIMEOUT, DEBUGINFOD_RETRY_LIMIT and DEBUGINFOD_MAXSIZE. The cache of elfutils (DEBUGINFOD_CACHE_PATH) is read
// as one more directory and never written, because its format has no lock. Answers that a server has no file are remembered as
// long as the Finder lives.
//
// The files are hostile input: numbers in them decide no allocation. The package knows no dump. A Finder belongs to one
// goroutine; any number of processes may share a cache.
package debuginfo
