// Package sftpfs is the file system of a plain SFTP server (OpenSSH's sftp-server or
// internal-sftp) as dump directories need it: see dumpdir.FS.
//
// It needs the extension posix-rename@openssh.com. With fsync@openssh.com, which OpenSSH has
// since 6.3, what Sync and SyncDir returned for is on the server's disk; without it, it is with the server.
//
// A server far away answers late, so writes do not wait for it: they go out at once, many at a
// time, bounded in bytes, and their errors come with the next operation on the file, at the latest with Sync. Small
// ones, such as those of descriptors, go out together. Small reads come from a bounded cache of blocks, which knows as well
// where a file has only grown; a file that is read from front to back is read ahead. All this relies on the file's
// being written by nobody else, which is what the lock is for: see Lock.
//
// The server's answers are not trusted beyond what they are about. An FS is safe for
// concurrent use.
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

// Bounds of the bytes of writes that the server has not answered; each write counts for minCost at least, so that there
// are some hundreds of them at most. What is more than the line needs only lies in the server's memory, and OpenSSH's takes
// about a second to make room for the 2 MiB of a channel's window, because it moves all that it has for every packet more.
const (
	leastInFlight = 512 << 10
	mostInFlight  = 4 << 20
	fastLine      = 128 << 20 // bytes a second
	minCost       = 16 << 10
)

// lowSpace is what is left on a disk that is called full, in bytes.
const lowSpace = 1 << 20

// Rights of what is made: dumps hold all that was in a kernel's memory.
const (
	dirMode  = 0o750
	fileMode = 0o640
)

// FS is the file system of a server.
type FS struct {
	c      *sftp.Client
	fsync  bool
	owner  string // tells this process from others that hold locks
	room   *semaphore.Weighted
	timing timing
	spare  chan []byte // buffers of pieceLen

	mu    sync.Mutex
	err   error               // once a lock was lost
	locks map[string]sighting // of others, as they were last seen
}

// New returns the file system of the server at the other end of c, which stays the caller's. owner is
// a name for this process that no other one has, of letters and digits.
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

// widen lets a piece be one packet where the server is new enough to tell of its limits (OpenSSH 8.5; its packets have had
// 256 KiB since long before, SFTP_MAX_MSG_LENGTH in sftp-common.h). Others need not take more than the 32 KiB of section 3 of
// draft-ietf-secsh-filexfer-02, each of which costs both sides as much as a piece.
func widen(c *sftp.Client) error {
	if _, ok := c.HasExtension("limits@openssh.com"); !ok {
		return nil
	}
	return sftp.MaxPacketUnchecked(pieceLen)(c)
}

// roundTrip returns how long an answer takes. The better of two tries is the line's, the other one may be the server's.
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

// inFlight returns how much keeps a line busy on which answers take so long.
func inFlight(trip time.Duration) int64 {
	return int64(min(leastInFlight+fastLine*trip.Seconds(), mostInFlight))
}

// Durable reports whether the server can put what it has on its disk when asked to.
func (f *FS) Durable() bool { return f.fsync }

// check returns why nothing may be done any more.
func (f *FS) check() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.err
}

// wrap names what an operation was about.
func wrap(op, name string, err error) error {
	if err == nil {
		return nil
	}
	return &fs.PathError{Op: "sftp " + op, Path: name, Err: err}
}

// Lost reports whether an error comes of a channel to the server that has ended.
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

// clone copies p, which is a piece at most.
func (f *FS) clone(p []byte) []byte {
	if len(p) <= pieceLen/2 {
		return bytes.Clone(p)
	}
	return append(f.buffer()[:0], p...)
}

// giveBack takes a buffer that is not used any more.
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
			return nil // somebody else was quicker
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

// SyncDir implements dumpdir.FS. OpenSSH opens a directory like a file when asked to read it.
func (f *FS) SyncDir(name string) error {
	if !f.fsync {
		return nil
	}
	d, err := f.c.OpenFile(name, os.O_RDONLY)
	if err != nil {
		return wrap("open", name, err)
	}
	err = f.failed("fsync", name, d.Sync())
	go func() { _ = d.Close() }() // nothing is to come of it
	return err
}

// Free returns how much room there is on the disk of a file or directory for who writes there, in bytes. The error matches
// errors.ErrUnsupported where the server cannot tell (statvfs@openssh.com).
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

// failed is wrap for what may need room on the disk.
func (f *FS) failed(op, name string, err error) error { return wrap(op, name, f.full(name, err)) }

// full makes a failure tell that the disk is full, if it is: SFTP has no code for that.
func (f *FS) full(name string, err error) error {
	var status *sftp.StatusError
	if !errors.As(err, &status) || status.FxCode() != sftp.ErrSSHFxFailure {
		return err
	}
	free, serr := f.Free(name)
	if serr != nil { // it could not be made
		free, serr = f.Free(path.Dir(name))
	}
	if serr == nil && free < lowSpace {
		return fmt.Errorf("%w (%w)", syscall.ENOSPC, err)
	}
	return err
}

// sighting is a lock file as it was first seen to say what it says.
type sighting struct {
	text string
	at   time.Time
}

var _ dumpdir.FS = (*FS)(nil)
