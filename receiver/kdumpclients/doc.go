// Package kdumpclients receives the files of unmodified kdump clients (Red Hat's, Debian's and SUSE's, over SSH with dd, cat,
// scp or SFTP) and makes ordinary dumps of them.
//
// A client sees files: each host, known by its key, has a virtual [Tree] with the directories that it made, its
// arriving dump and a few small files. Paths of clients are names in this tree, never paths on the disk. Under the
// directory of [Config], the disk has for each host
//
//	HOST/tree.json      the tree: directories, files, and what became of them
//	HOST/N.file         bytes of file number N as the client sent them
//	HOST/N.image        the dump inside file number N, reassembled
//	HOST/N.map          which bytes of it have come, as of the last checkpoint
//
// At the first use of a host's directory, files that tree.json does not list are removed.
//
// All input is hostile. The numbers of directories and files, the lengths of names and files, and the bytes of a host are
// bounded. Memory does not grow with any of them. All types are safe for concurrent use.
package kdumpclients
