// Package sftpfs implements dumpdir.FS on a plain SFTP server (OpenSSH's sftp-server or
// internal-sftp), through package remotefs.
//
// It needs the extension posix-rename@openssh.com. With fsync@openssh.com (OpenSSH 6.3),
// data is on the server's disk when Sync or SyncDir returns. Without it, the server has
// the data, but it may not be on disk.
//
// The server is not trusted: its answers decide nothing but the operation that they
// answer. An FS is safe for concurrent use.
package sftpfs

import (
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path"
	"slices"
	"syscall"
	"time"

	"github.com/pkg/sftp"

	"github.com/corehaul/corehaul/sender/remotefs"
)

// pieceLen is the length of one write or one read ahead, in bytes: a few packets.
const pieceLen = 128 << 10

// Bounds of the bytes in flight. OpenSSH takes about a second for the 2 MiB of a channel's window, because it moves all
// waiting data with each further packet.
const (
	leastInFlight = 512 << 10
	mostInFlight  = 4 << 20
	fastLine      = 128 << 20 // bytes a second
)

// lowSpace is the free space below which a disk counts as full, in bytes.
const lowSpace = 1 << 20

// FS is the file system of a server.
type FS struct {
	*remotefs.FS
	durable bool
}

// server implements remotefs.Server.
type server struct {
	c     *sftp.Client
	fsync bool
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
	s := &server{c: c, fsync: ok && version == "1"}
	files := remotefs.New(s, remotefs.Config{Owner: owner, ReadLen: pieceLen, WriteLen: pieceLen, InFlight: inFlight(trip), RoundTrip: trip})
	return &FS{FS: files, durable: s.fsync}, nil
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
func (f *FS) Durable() bool { return f.durable }

// wrap adds the operation and the name of the file to an error.
func wrap(op, name string, err error) error {
	if err == nil {
		return nil
	}
	return &fs.PathError{Op: "sftp " + op, Path: name, Err: err}
}

// Lost reports whether an error means that the channel to the server has ended.
func Lost(err error) bool { return errors.Is(err, sftp.ErrSSHFxConnectionLost) }

// Open implements remotefs.Server.
func (s *server) Open(name string, flags int) (remotefs.Handle, func() error, error) {
	h, err := s.c.OpenFile(name, flags)
	if err != nil {
		return nil, nil, s.openError(name, flags, err)
	}
	var after func() error
	if flags&os.O_CREATE != 0 {
		after = func() error { return wrap("chmod", name, h.Chmod(remotefs.FileMode)) }
	}
	return &handle{s: s, name: name, h: h}, after, nil
}

// openError returns the error of opening a file. SFTP has no code for a name that exists: such an error matches fs.ErrExist
// if it may mean that.
func (s *server) openError(name string, flags int, err error) error {
	op := "open"
	if flags&os.O_CREATE != 0 {
		op = "create"
	}
	var status *sftp.StatusError
	if flags&os.O_EXCL != 0 && errors.As(err, &status) && status.FxCode() == sftp.ErrSSHFxFailure {
		return wrap(op, name, fmt.Errorf("%w (%w)", fs.ErrExist, err))
	}
	return s.failed(op, name, err)
}

// Rename implements remotefs.Server.
func (s *server) Rename(from, to string) error {
	return s.failed("rename", from, s.c.PosixRename(from, to))
}

// Remove implements remotefs.Server.
func (s *server) Remove(name string) error { return wrap("remove", name, s.c.Remove(name)) }

// Mkdir implements remotefs.Server.
func (s *server) Mkdir(name string) error {
	if err := s.c.Mkdir(name); err != nil {
		return s.failed("mkdir", name, err)
	}
	return wrap("chmod", name, s.c.Chmod(name, remotefs.DirMode))
}

// IsDir implements remotefs.Server.
func (s *server) IsDir(name string) (bool, error) {
	st, err := s.c.Stat(name)
	return err == nil && st.IsDir(), wrap("stat", name, err)
}

// ReadDir implements remotefs.Server.
func (s *server) ReadDir(name string) ([]string, error) {
	entries, err := s.c.ReadDir(name)
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

// SyncDir implements remotefs.Server. OpenSSH opens a directory like a file for reading.
func (s *server) SyncDir(name string) error {
	if !s.fsync {
		return nil
	}
	d, err := s.c.OpenFile(name, os.O_RDONLY)
	if err != nil {
		return wrap("open", name, err)
	}
	err = s.failed("fsync", name, d.Sync())
	go func() { _ = d.Close() }() // its result does not matter
	return err
}

// Free implements remotefs.Server. It needs statvfs@openssh.com.
func (s *server) Free(name string) (int64, error) {
	if version, ok := s.c.HasExtension("statvfs@openssh.com"); !ok || version != "2" {
		return 0, wrap("statvfs", name, errors.ErrUnsupported)
	}
	st, err := s.c.StatVFS(name)
	if err != nil {
		return 0, wrap("statvfs", name, err)
	}
	if st.Frsize > 0 && st.Bavail > math.MaxInt64/st.Frsize {
		return math.MaxInt64, nil
	}
	return int64(st.Bavail * st.Frsize), nil //nolint:gosec // was just compared
}

// failed is wrap for operations that may need space on the disk.
func (s *server) failed(op, name string, err error) error { return wrap(op, name, s.full(name, err)) }

// full adds syscall.ENOSPC to an error if the disk is full, because SFTP has no code for that.
func (s *server) full(name string, err error) error {
	var status *sftp.StatusError
	if !errors.As(err, &status) || status.FxCode() != sftp.ErrSSHFxFailure {
		return err
	}
	free, serr := s.Free(name)
	if serr != nil { // the file could not be created
		free, serr = s.Free(path.Dir(name))
	}
	if serr == nil && free < lowSpace {
		return fmt.Errorf("%w (%w)", syscall.ENOSPC, err)
	}
	return err
}
