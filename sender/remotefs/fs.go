// Package remotefs implements dumpdir.FS on a file server, whatever protocol the server
// speaks. Packages sftpfs and nfsfs have the protocols.
//
// Because a distant server answers late, writes do not wait for it. Many are in flight at
// a time, bounded in bytes, and on a slow line in the time that they take: see window. The next operation on the file returns their errors, Sync at
// the latest. Small writes, such as those of page descriptors, are sent together. Small
// reads use a bounded cache of blocks, which also knows where a file has only grown. A
// file that is read sequentially is read ahead. All this requires that nobody else writes
// the file. The lock ensures that: see Lock.
//
// An FS is safe for concurrent use.
package remotefs

import (
	"io"
	"os"
	"path"
	"sync"
	"time"

	"github.com/corehaul/corehaul/dumpdir"
)

// Permissions of new directories and files. Dumps contain all secrets of a kernel's memory.
const (
	DirMode  = 0o750
	FileMode = 0o640
)

// Server is a file server. Its errors name the operation and the file, and match what dumpdir.FS wants. Calls may come at
// the same time.
type Server interface {
	// Open opens a file. flags are os.O_RDONLY; or os.O_RDWR, alone or with os.O_CREATE and one of os.O_TRUNC and
	// os.O_EXCL. after, unless nil, is work of Open that the caller does in the background.
	Open(name string, flags int) (h Handle, after func() error, err error)
	// Rename replaces an existing file of the new name.
	Rename(from, to string) error
	Remove(name string) error
	// Mkdir creates a directory with DirMode.
	Mkdir(name string) error
	// IsDir reports whether there is a directory. The error is nil if there is something else; it matches
	// fs.ErrNotExist if there is nothing.
	IsDir(name string) (bool, error)
	// ReadDir returns the names in a directory, sorted.
	ReadDir(name string) ([]string, error)
	// SyncDir makes the names in a directory durable, if the server can.
	SyncDir(name string) error
	// Free returns the space on the disk of a file or directory that this user may use, in bytes. The error matches
	// errors.ErrUnsupported if the server does not know.
	Free(name string) (int64, error)
}

// Handle is an open file of a Server. Reads and writes may come at the same time.
type Handle interface {
	io.ReaderAt
	io.WriterAt
	io.Closer
	Truncate(size int64) error
	// Sync makes all writes durable that were answered before it, if the server can.
	Sync() error
	Size() (int64, error)
}

// Config says how to use a server.
type Config struct {
	// Owner is a unique name for this process, of letters and digits. It identifies the process in locks.
	Owner string
	// ReadLen and WriteLen bound the length of one large read or write, in bytes. On a slow line, they are shorter.
	ReadLen, WriteLen int
	// InFlight bounds the bytes that were sent and not answered. On a slow line, they are fewer. More than the line needs only
	// fills the server's memory.
	InFlight int64
	// RoundTrip is how long an answer takes that has to wait for nothing.
	RoundTrip time.Duration
}

// FS is the file system of a server.
type FS struct {
	server        Server
	owner         string
	pieceLen      int // the longest of a read or a write
	reads, writes *window
	timing        timing
	spare         chan []byte // buffers of pieceLen

	mu    sync.Mutex
	err   error               // set once a lock was lost
	locks map[string]sighting // locks of others, as last seen
}

// New returns the file system of a server.
func New(s Server, c Config) *FS {
	pieceLen := max(c.ReadLen, c.WriteLen)
	return &FS{
		server: s, owner: c.Owner, pieceLen: pieceLen,
		reads: newWindow(aheadLen, c.ReadLen, c.RoundTrip), writes: newWindow(c.InFlight, c.WriteLen, c.RoundTrip),
		timing: defaultTiming, spare: make(chan []byte, max(c.InFlight/int64(pieceLen), 1)), locks: map[string]sighting{},
	}
}

// check returns the error that all calls return after a lock was lost.
func (f *FS) check() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.err
}

func (f *FS) open(name string, flags int) (dumpdir.File, error) {
	if err := f.check(); err != nil {
		return nil, err
	}
	h, after, err := f.server.Open(name, flags)
	if err != nil {
		return nil, err
	}
	file := newFile(f, h, flags&os.O_TRUNC != 0)
	if after != nil {
		file.begin(&write{done: make(chan struct{})}, after)
	}
	return file, nil
}

// buffer returns a buffer of n bytes, at most pieceLen.
func (f *FS) buffer(n int) []byte {
	if n <= f.pieceLen/2 {
		return make([]byte, n)
	}
	select {
	case b := <-f.spare:
		return b[:n]
	default:
		return make([]byte, n, f.pieceLen)
	}
}

// giveBack keeps an unused buffer for buffer.
func (f *FS) giveBack(b []byte) {
	if cap(b) != f.pieceLen {
		return
	}
	select {
	case f.spare <- b:
	default:
	}
}

// Create implements dumpdir.FS.
func (f *FS) Create(name string) (dumpdir.File, error) {
	return f.open(name, os.O_RDWR|os.O_CREATE|os.O_TRUNC)
}

// Open implements dumpdir.FS.
func (f *FS) Open(name string) (dumpdir.File, error) { return f.open(name, os.O_RDONLY) }

// OpenRW implements dumpdir.FS.
func (f *FS) OpenRW(name string) (dumpdir.File, error) { return f.open(name, os.O_RDWR) }

// Rename implements dumpdir.FS.
func (f *FS) Rename(from, to string) error {
	if err := f.check(); err != nil {
		return err
	}
	return f.server.Rename(from, to)
}

// Remove implements dumpdir.FS.
func (f *FS) Remove(name string) error {
	if err := f.check(); err != nil {
		return err
	}
	return f.server.Remove(name)
}

// MkdirAll implements dumpdir.FS.
func (f *FS) MkdirAll(name string) error {
	if ok, err := f.server.IsDir(name); err == nil && ok {
		return nil
	}
	parent := path.Dir(name)
	if parent != name {
		if err := f.MkdirAll(parent); err != nil {
			return err
		}
	}
	if err := f.server.Mkdir(name); err != nil {
		if ok, serr := f.server.IsDir(name); serr == nil && ok {
			return nil // somebody else has just made it
		}
		return err
	}
	return f.SyncDir(parent)
}

// ReadDir implements dumpdir.FS.
func (f *FS) ReadDir(name string) ([]string, error) { return f.server.ReadDir(name) }

// SyncDir implements dumpdir.FS.
func (f *FS) SyncDir(name string) error { return f.server.SyncDir(name) }

// Free returns the space on the disk of a file or directory that this user may use, in bytes. The error matches
// errors.ErrUnsupported if the server does not know.
func (f *FS) Free(name string) (int64, error) { return f.server.Free(name) }

var _ dumpdir.FS = (*FS)(nil)
