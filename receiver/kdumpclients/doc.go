// Package kdumpclients takes what unmodified kdump clients send (Red Hat's, Debian's and SUSE's, over SSH with dd, cat, scp or SFTP)
// and makes ordinary dumps of a store out of it.
//
// A client sees files: each host, known by its key, has a virtual [Tree] with the directories that it made, its
// arriving dump and the few small files around it. Paths of the client are names in that tree and never paths of the disk. On disk, under
// the directory of [Config], lie for each host
//
//	HOST/tree.json      the tree: directories, files, and what became of them
//	HOST/N.file         bytes of file number N as the client sent them
//	HOST/N.image        the dump inside file number N, reassembled
//	HOST/N.map          which bytes of it have come, as of the last checkpoint
//
// Who opens the directory of a host removes what tree.json does not know.
//
// All that arrives is hostile input: numbers of directories and files, lengths of names and files and bytes of a host are
// bounded, and memory does not grow with any of them. All types are safe for concurrent use.
package kdumpclients
