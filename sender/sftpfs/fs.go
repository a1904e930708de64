// Package sftpfs implements dumpdir.FS on a plain SFTP server (OpenSSH's sftp-server or
// internal-sftp).
//
// It needs the extension posix-rename@openssh.com. With fsync@openssh.com (OpenSSH 6.3),
// data is on the server's disk when Sync or SyncDir returns. Without it, the server has
// the data, but it may not be on disk.
//
// Because a distant server answers late, writes do not wait for it. Many are in flight at
// a time, bounded in bytes. The next operation on the file returns their errors, Sync at
// the latest. Small writes, such as those of page descriptors, are sent together. Small
// reads use a bounded cache of blocks, which also knows where a file has only grown. A
// file that is read sequentially is read ahead. All this requires that nobody else writes
// the file. The lock ensures that: see Lock.
//
// The server is not trusted: its answers decide nothing but the operation that they
// answer. An FS is safe for concurrent use.
package sftpfs

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/pkg/sftp"
	"golang.org/x/sync/semaphore"

	"github.com/corehaul/corehaul/dumpdir"
)

// Bounds of the bytes in flight, that is, of writes that the server has not answered. Each write counts as minCost at
// least, so there are a few hundred at most. More than the line needs only fills the server's memory. OpenSSH takes about
// a second for the 2 MiB of a channel's window, because it moves all waiting data with each further packet.
const (
	leastInFlight = 512 << 10
	mostInFlight  = 4 << 20
	fastLine      = 128 << 20 // bytes a second
	minCost       = 16 << 10
)

// lowSpace is the free space below which a disk counts as full, in bytes.
const lowSpace = 1 << 20

// Permissions of new directories and files. Dumps contain all secrets of a kernel's memory.
const (
	dirMode  = 0o750
	fileMode = 0o640
)

// FS is the file system of a server.
type FS struct {
	c      *sftp.Client
	fsync  bool
	owner  string // identifies this process in locks
	room   *semaphore.Weighted
	timing timing
	spare  chan []byte // buffers of pieceLen

	mu    sync.Mutex
	err   error               // set once a lock was lost
	locks map[string]sighting // locks of others, as last seen
}

// New returns the file system of the server at the other end of c. The caller closes c. owner is a unique name for this
// process, of letters and digits.
func New(c *sftp.Client, owner string) (*FS, error) {
	if _, ok := c.HasExtension("posix-rename@openssh.com"); !ok {
		return nil, fmt.Errorf("the SFTP server has no posix-rename@openssh.com, which OpenSSH has: %w", errors.ErrUnsupported)
	}
	if err := widen(c); err != nil {
		return nil, err
	}
	version, ok := c.HasExtension("fsync@openssh.com")
	trip, err := roundTrip(c)
	if err != nil {
		return nil, err
	}
	return &FS{
		c: c, fsync: ok && version == "1", owner: owner, room: semaphore.NewWeighted(inFlight(trip)),
		timing: defaultTiming, spare: make(chan []byte, mostInFlight/pieceLen), locks: map[string]sighting{},
	}, nil
}

// widen allows packets of pieceLen for servers that report their limits (OpenSSH 8.5, whose packets may have 256 KiB:
// SFTP_MAX_MSG_LENGTH in sftp-common.h). Other servers need not accept more than 32 KiB (draft-ietf-secsh-filexfer-02,
// section 3). A small packet costs both sides as much as a large one.
func widen(c *sftp.Client) error {
	if _, ok := c.HasExtension("limits@openssh.com"); !ok {
		return nil
	}
	return sftp.MaxPacketUnchecked(pieceLen)(c)
}

// roundTrip returns how long an answer takes: the shorter of two tries, because the server may delay one of them.
func roundTrip(c *sftp.Client) (time.Duration, error) {
	best := time.Duration(math.MaxInt64)
	for range 2 {
		start := time.Now()
		if _, err := c.RealPath("."); err != nil {
			return 0, wrap("realpath", ".", err)
		}
		best = min(best, time.Since(start))
	}
	return best, nil
}

// inFlight returns how many bytes in flight keep a line with this round trip busy.
func inFlight(trip time.Duration) int64 {
	return int64(min(leastInFlight+fastLine*trip.Seconds(), mostInFlight))
}

// Durable reports whether the server has fsync.
func (f *FS) Durable() bool { return f.fsync }

// check returns the error that all calls return after a lock was lost.
func (f *FS) check() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.err
}

// wrap adds the operation and the name of the file to an error.
func wrap(op, name string, err error) error {
	if err == nil {
		return nil
	}
	return &fs.PathError{Op: "sftp " + op, Path: name, Err: err}
}

// Lost reports whether an error means that the channel to the server has ended.
func Lost(err error) bool { return errors.Is(err, sftp.ErrSSHFxConnectionLost) }

func (f *FS) open(op, name string, flags int) (*file, error) {
	if err := f.check(); err != nil {
		return nil, err
	}
	h, err := f.c.OpenFile(name, flags)
	if err != nil {
		return nil, f.failed(op, name, err)
	}
	file := newFile(f, name, h, flags&os.O_TRUNC != 0)
	if flags&os.O_CREATE != 0 {
		file.begin(&write{done: make(chan struct{})}, func() error { return wrap("chmod", name, h.Chmod(fileMode)) })
	}
	return file, nil
}

// buffer returns a buffer for a piece.
func (f *FS) buffer() []byte {
	select {
	case b := <-f.spare:
		return b[:pieceLen]
	default:
		return make([]byte, pieceLen)
	}
}

// clone copies p, which has at most pieceLen bytes.
func (f *FS) clone(p []byte) []byte {
	if len(p) <= pieceLen/2 {
		return bytes.Clone(p)
	}
	return append(f.buffer()[:0], p...)
}

// giveBack keeps an unused buffer for buffer.
func (f *FS) giveBack(b []byte) {
	if cap(b) != pieceLen {
		return
	}
	select {
	case f.spare <- b:
	default:
	}
}

// Create implements dumpdir.FS.
func (f *FS) Create(name string) (dumpdir.File, error) {
	return opened(f.open("create", name, os.O_RDWR|os.O_CREATE|os.O_TRUNC))
}

// Open implements dumpdir.FS.
func (f *FS) Open(name string) (dumpdir.File, error) {
	return opened(f.open("open", name, os.O_RDONLY))
}

// OpenRW implements dumpdir.FS.
func (f *FS) OpenRW(name string) (dumpdir.File, error) {
	return opened(f.open("open", name, os.O_RDWR))
}

// opened keeps a nil *file from becoming a File that is not nil.
func opened(f *file, err error) (dumpdir.File, error) {
	if err != nil {
		return nil, err
	}
	return f, nil
}

// Rename implements dumpdir.FS.
func (f *FS) Rename(from, to string) error {
	if err := f.check(); err != nil {
		return err
	}
	return f.failed("rename", from, f.c.PosixRename(from, to))
}

// Remove implements dumpdir.FS.
func (f *FS) Remove(name string) error {
	if err := f.check(); err != nil {
		return err
	}
	return wrap("remove", name, f.c.Remove(name))
}

// MkdirAll implements dumpdir.FS.
func (f *FS) MkdirAll(name string) error {
	if st, err := f.c.Stat(name); err == nil && st.IsDir() {
		return nil
	}
	parent := path.Dir(name)
	if parent != name {
		if err := f.MkdirAll(parent); err != nil {
			return err
		}
	}
	if err := f.c.Mkdir(name); err != nil {
		if st, serr := f.c.Stat(name); serr == nil && st.IsDir() {
			return nil // somebody else has just made it
		}
		return f.failed("mkdir", name, err)
	}
	if err := f.c.Chmod(name, dirMode); err != nil {
		return wrap("chmod", name, err)
	}
	return f.SyncDir(parent)
}

// ReadDir implements dumpdir.FS.
func (f *FS) ReadDir(name string) ([]string, error) {
	entries, err := f.c.ReadDir(name)
	if err != nil {
		return nil, wrap("readdir", name, err)
	}
	names := make([]string, len(entries))
	for i, e := range entries {
		names[i] = e.Name()
	}
	slices.Sort(names)
	return names, nil
}

// SyncDir implements dumpdir.FS. OpenSSH opens a directory like a file for reading.
func (f *FS) SyncDir(name string) error {
	if !f.fsync {
		return nil
	}
	d, err := f.c.OpenFile(name, os.O_RDONLY)
	if err != nil {
		return wrap("open", name, err)
	}
	err = f.failed("fsync", name, d.Sync())
	go func() { _ = d.Close() }() // its result does not matter
	return err
}

// Free returns the space on the disk of a file or directory that this user may use, in bytes. The error matches
// errors.ErrUnsupported if the server does not know (statvfs@openssh.com).
func (f *FS) Free(name string) (int64, error) {
	if version, ok := f.c.HasExtension("statvfs@openssh.com"); !ok || version != "2" {
		return 0, wrap("statvfs", name, errors.ErrUnsupported)
	}
	st, err := f.c.StatVFS(name)
	if err != nil {
		return 0, wrap("statvfs", name, err)
	}
	if st.Frsize > 0 && st.Bavail > math.MaxInt64/st.Frsize {
		return math.MaxInt64, nil
	}
	return int64(st.Bavail * st.Frsize), nil //nolint:gosec // was just compared
}

// failed is wrap for operations that may need space on the disk.
func (f *FS) failed(op, name string, err error) error { return wrap(op, name, f.full(name, err)) }

// full adds syscall.ENOSPC to an error if the disk is full, because SFTP has no code for that.
func (f *FS) full(name string, err error) error {
	var status *sftp.StatusError
	if !errors.As(err, &status) || status.FxCode() != sftp.ErrSSHFxFailure {
		return err
	}
	free, serr := f.Free(name)
	if serr != nil { // the file could not be created
		free, serr = f.Free(path.Dir(name))
	}
	if serr == nil && free < lowSpace {
		return fmt.Errorf("%w (%w)", syscall.ENOSPC, err)
	}
	return err
}

// sighting is the text of a lock file, and when it was first seen.
type sighting struct {
	text string
	at   time.Time
}

var _ dumpdir.FS = (*FS)(nil)
