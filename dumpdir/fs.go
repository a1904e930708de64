package dumpdir

import "io"

// FS is the file system of a dump directory. Names are slash-separated paths. The error for a missing name matches
// fs.ErrNotExist, for an existing one fs.ErrExist, for a full disk syscall.ENOSPC. Implementations are safe for
// concurrent use.
//
// The writer relies on this: bytes for which File.Sync returned, and the names of a directory for which SyncDir
// returned, survive a power cut. Everything else may be lost, kept or torn.
type FS interface {
	// Create creates an empty file, open for reading and writing. It replaces an existing one.
	Create(name string) (File, error)
	// Open opens a file for reading.
	Open(name string) (File, error)
	// OpenRW opens an existing file for reading and writing.
	OpenRW(name string) (File, error)
	// Rename renames a file or directory atomically. It replaces an existing file of the new name.
	Rename(from, to string) error
	// Remove removes a file.
	Remove(name string) error
	// MkdirAll creates a directory and its missing parents durably, with mode 0750 if there are modes.
	MkdirAll(name string) error
	// ReadDir returns the names in a directory, sorted.
	ReadDir(name string) ([]string, error)
	// SyncDir makes the names in a directory durable.
	SyncDir(name string) error
	// Lock takes the writer's lock of a directory. Close, or the end of the process, releases it. If another writer
	// has it, Lock does not wait: the error matches ErrLocked.
	Lock(dir string) (io.Closer, error)
}

// Exchanger is an FS that can exchange the names of two directories atomically. If it cannot, the error matches
// errors.ErrUnsupported.
type Exchanger interface {
	Exchange(a, b string) error
}

// PlainOpener is an FS with links. OpenPlain is Open for a name whose last element must not be a link.
type PlainOpener interface {
	OpenPlain(name string) (File, error)
}

// File is an open file. Writes beyond the end fill the gap with zeros.
type File interface {
	io.ReaderAt
	io.WriterAt
	io.Closer
	// Truncate sets the length. New bytes are zero.
	Truncate(size int64) error
	// Sync returns when everything written so far is durable.
	Sync() error
	// Size returns the length in bytes.
	Size() (int64, error)
}

// Allocator is a File that can allocate [off, off+n) without a change of its length, so that later writes there find
// space. A Truncate to the present length releases blocks beyond the end. An implementation without this ability does
// nothing.
type Allocator interface {
	Allocate(off, n int64) error
}

// SyncStarter is a File that can let its disk begin to write [off, off+n), so that the next Sync has less to wait for. StartSync
// promises nothing. The Sync reports what fails.
type SyncStarter interface {
	StartSync(off, n int64)
}
