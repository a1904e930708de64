package dumpdir

import "io"

// FS is the file system that a dump directory lives on. Names are slash-separated
// paths. Errors for a missing name match fs.ErrNotExist, for one in the way
// fs.ErrExist, for a full disk syscall.ENOSPC. Implementations are safe for
// concurrent use.
//
// An implementation owes the writer this and no more: what File.Sync returned for
// is there after a power cut, and so are the names of a directory that SyncDir
// returned for. Everything else may be lost, kept or torn.
type FS interface {
	// Create makes an empty file, in the place of the one that may be there, open for reading and writing.
	Create(name string) (File, error)
	// Open opens a file for reading.
	Open(name string) (File, error)
	// OpenRW opens a file for reading and writing; it must exist.
	OpenRW(name string) (File, error)
	// Rename gives a file or directory a new name and replaces a file that has it, atomically.
	Rename(from, to string) error
	// Remove removes a file.
	Remove(name string) error
	// MkdirAll makes a directory and its missing parents, durably, mode 0750 where there are modes.
	MkdirAll(name string) error
	// ReadDir returns the names in a directory, sorted.
	ReadDir(name string) ([]string, error)
	// SyncDir makes the names in a directory durable.
	SyncDir(name string) error
	// Lock takes the only writer's lock of a directory, which ends with Close or with the process.
	// When it is taken the error matches ErrLocked. It does not wait.
	Lock(dir string) (io.Closer, error)
}

// Exchanger is an FS that can give two directories each other's name, so that both names are taken at any
// instant. The error matches errors.ErrUnsupported where it cannot.
type Exchanger interface {
	Exchange(a, b string) error
}

// File is an open file. Writes beyond the end fill the gap with zeros.
type File interface {
	io.ReaderAt
	io.WriterAt
	io.Closer
	// Truncate sets the length; new bytes are zero.
	Truncate(size int64) error
	// Sync returns when everything written so far is durable.
	Sync() error
	// Size returns the length in bytes.
	Size() (int64, error)
}

// Allocator is a File that can set space aside without changing its length, so that later writes
// into [off, off+n) do not run out of it. What lies beyond the end is given back by a Truncate to
// the length that the file has. Where the power is missing, writes may run out of space.
type Allocator interface {
	Allocate(off, n int64) error
}
