package kdumpclients

import (
	"io"
	"io/fs"
)

// Tree is what one host sees. Paths are the client's own, relative ones from the root; they are
// cleaned here (repeated slashes, dots), and none leads out of the tree. Errors match fs.ErrNotExist, fs.ErrExist,
// fs.ErrPermission, fs.ErrInvalid (a path or a call that cannot be), or syscall.ENOSPC (a limit of the host or the disk). What changes
// the tree is durable on return.
type Tree interface {
	// Mkdir makes a directory, and its parents where they are missing: a tree begins empty, and old clients take theirs
	// for granted. The error matches fs.ErrExist when something is there.
	Mkdir(p string) error
	// MkdirAll is Mkdir that is content with a directory that is there.
	MkdirAll(p string) error
	// MkdirTemp makes a directory with a name of its own in parent, as mktemp -d does, and returns its path. It goes with
	// Rmdir, or by itself after an hour.
	MkdirTemp(parent string) (string, error)
	// Rmdir removes an empty directory.
	Rmdir(p string) error
	// Rename gives a file another name, in the place of a file that has it. Directories are not renamed. A file that arrives, or of
	// which a dump is being made, stays in its directory: syscall.EBUSY.
	Rename(from, to string) error
	// Create begins a file, anew if one has the name; an upload to that one that is still under way has lost it. The directory must exist.
	Create(p string) (Upload, error)
	// Open opens a small file for reading. Dumps cannot be read: fs.ErrPermission.
	Open(p string) (Download, error)
	// Stat describes a file or directory. The size of a file is what the client has sent of it.
	Stat(p string) (fs.FileInfo, error)
	// ReadDir describes what is in a directory, sorted by name.
	ReadDir(p string) ([]fs.FileInfo, error)
	// Free returns how many bytes the host may still store. Any path will do.
	Free(p string) (bytes uint64, err error)
}

// Upload is a file that arrives. One of Close and Abort ends it; what is called after that does nothing.
type Upload interface {
	// WriteAt takes bytes of the file, in any order. A dump that comes in a stream (flattened or compressed) is unpacked on the way,
	// and its writer waits for that. Bytes of a stream that came before the ones ahead of them are put
	// aside, up to a bound.
	io.WriterAt
	// Truncate sets the length. A stream that was read that far cannot be cut.
	Truncate(size int64) error
	// Close is for a client that ended the file in order. On return what was sent is durable; the error is for the client, which
	// has to know that its file is not what it should be.
	Close() error
	// Abort is for a connection that broke, and err says how. What came is kept: it may be a dump that can be used.
	Abort(err error)
}

// Download is an open small file.
type Download interface {
	io.ReaderAt
	io.Closer
	// Size returns the length in bytes.
	Size() int64
}
