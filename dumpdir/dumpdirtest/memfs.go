// Package dumpdirtest helps to test users of dumpdir. It has a file system in memory that
// loses unsynced data when its power is cut and fails on demand, and dumps of small
// generated machines.
//
// It is for tests only. FS is safe for concurrent use.
package dumpdirtest

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"slices"
	"strings"
	"sync"

	"github.com/corehaul/corehaul/dumpdir"
)

// Op is a kind of file system operation, for faults.
type Op string

// The operations that change data or make it durable.
const (
	OpCreate   Op = "create"
	OpWrite    Op = "write"
	OpTruncate Op = "truncate"
	OpSync     Op = "sync"
	OpRename   Op = "rename"
	OpRemove   Op = "remove"
	OpMkdir    Op = "mkdir"
	OpSyncDir  Op = "syncdir"
)

// Fault decides about an operation: nil lets it happen, an error makes it fail. A failed write has written a part. An error
// that matches ErrPowerCut switches the power off. n counts operations from 1.
type Fault func(n int, op Op, name string) error

// ErrPowerCut is returned by everything after Cut.
var ErrPowerCut = fmt.Errorf("power cut: %w", fs.ErrClosed)

// sectorLen is the unit that a disk writes as a whole.
const sectorLen = 512

// FS is a file system in memory. Writes, lengths and names are durable only once they are synced. Cut loses any part of the
// rest.
type FS struct {
	mu    sync.Mutex
	dirs  map[string]*dir
	locks map[string]bool
	epoch int // counts power cuts; handles of an earlier one are dead
	off   bool
	ops   int
	fault Fault
	room  int64 // bytes that all files may have together; 0 for no limit

	// IgnoreSync, if set, makes a sync of these files do nothing, to check that tests notice.
	IgnoreSync func(op Op, name string) bool
}

type dir struct {
	names   map[string]*inode // as programs see them
	durable map[string]*inode // as they were at the last SyncDir
	log     []change          // since then, in order
}

// change is a new state of one or two names.
type change struct{ set map[string]*inode } // nil inode: the name is gone

type inode struct {
	data    []byte // as programs see it
	durable []byte // as it was at the last Sync
	pending []pending
	sectors sectors // of the disk that it takes
}

// newInode returns a durable file without holes.
func newInode(data []byte) *inode {
	i := &inode{data: slices.Clone(data), durable: slices.Clone(data)}
	i.sectors.take(0, int64(len(data)))
	return i
}

// pending is a write or truncation since the last Sync.
type pending struct {
	off  int64
	data []byte // nil: a truncation to off
}

// NewFS returns an empty file system.
func NewFS() *FS {
	return &FS{dirs: map[string]*dir{"/": newDir()}, locks: map[string]bool{}}
}

func newDir() *dir { return &dir{names: map[string]*inode{}, durable: map[string]*inode{}} }

// SetFault sets the fault. nil removes it. The count of operations starts again.
func (s *FS) SetFault(f Fault) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fault, s.ops = f, 0
}

// SetRoom sets the size of the disk in bytes. 0 means no limit.
func (s *FS) SetRoom(n int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.room = n
}

// Used returns how many bytes all files take.
func (s *FS) Used() int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.used()
}

func (s *FS) used() (n int64) {
	for _, d := range s.dirs {
		for _, ino := range d.names {
			n += ino.sectors.count * sectorLen
		}
	}
	return n
}

// fits returns how many of the bytes in [off, off+n) fit on the disk. Those in a hole need room, others have theirs.
func (s *FS) fits(i *inode, off, n int64) int64 {
	if s.room == 0 {
		return n
	}
	return i.sectors.fits(off, n, max(0, s.room-s.used())/sectorLen)
}

// Ops returns how many operations there were since SetFault.
func (s *FS) Ops() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.ops
}

func keysOf[V any](m map[string]V) func(func(string) bool) {
	return func(yield func(string) bool) {
		for k := range m {
			if !yield(k) {
				return
			}
		}
	}
}

func cloneNames(m map[string]*inode) map[string]*inode {
	c := make(map[string]*inode, len(m))
	for k, v := range m {
		c[k] = v
	}
	return c
}

func (c change) apply(names map[string]*inode) {
	for name, ino := range c.set {
		if ino == nil {
			delete(names, name)
			continue
		}
		names[name] = ino
	}
}

// apply writes to data in place. Nothing else may refer to data.
func (p pending) apply(data []byte) []byte {
	if p.data == nil {
		return resize(data, p.off)
	}
	if end := p.off + int64(len(p.data)); end > int64(len(data)) {
		data = resize(data, end)
	}
	copy(data[p.off:], p.data)
	return data
}

// resize cuts data or adds zeros to it, in place if there is room.
func resize(data []byte, n int64) []byte {
	if n <= int64(len(data)) {
		return data[:n]
	}
	return append(data, make([]byte, n-int64(len(data)))...)
}

// begin counts an operation and returns its fault. mu is held.
func (s *FS) begin(op Op, name string) error {
	if s.off {
		return ErrPowerCut
	}
	s.ops++
	if s.fault != nil {
		if err := s.fault(s.ops, op, path.Base(name)); err != nil {
			s.off = s.off || errors.Is(err, ErrPowerCut)
			return &fs.PathError{Op: string(op), Path: name, Err: err}
		}
	}
	return nil
}

func (s *FS) ignored(op Op, name string) bool {
	return s.IgnoreSync != nil && s.IgnoreSync(op, path.Base(name))
}

func clean(name string) string { return path.Clean("/" + name) }

func (s *FS) lookup(op, name string) (*dir, *inode, error) {
	d := s.dirs[path.Dir(name)]
	if d == nil || d.names[path.Base(name)] == nil {
		return d, nil, &fs.PathError{Op: op, Path: name, Err: fs.ErrNotExist}
	}
	return d, d.names[path.Base(name)], nil
}

func (d *dir) change(set map[string]*inode) {
	c := change{set}
	c.apply(d.names)
	d.log = append(d.log, c)
}

// Create implements dumpdir.FS.
func (s *FS) Create(name string) (dumpdir.File, error) {
	name = clean(name)
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.begin(OpCreate, name); err != nil {
		return nil, err
	}
	d, ino, err := s.lookup("create", name)
	if d == nil {
		return nil, err
	}
	if ino == nil {
		ino = &inode{}
		d.change(map[string]*inode{path.Base(name): ino})
	} else {
		ino.truncate(0)
	}
	return &file{s: s, ino: ino, name: name, epoch: s.epoch, write: true}, nil
}

// Open implements dumpdir.FS.
func (s *FS) Open(name string) (dumpdir.File, error) { return s.open(name, false) }

// OpenRW implements dumpdir.FS.
func (s *FS) OpenRW(name string) (dumpdir.File, error) { return s.open(name, true) }

func (s *FS) open(name string, write bool) (dumpdir.File, error) {
	name = clean(name)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.off {
		return nil, ErrPowerCut
	}
	_, ino, err := s.lookup("open", name)
	if err != nil {
		return nil, err
	}
	return &file{s: s, ino: ino, name: name, epoch: s.epoch, write: write}, nil
}

// Rename implements dumpdir.FS for files.
func (s *FS) Rename(from, to string) error {
	from, to = clean(from), clean(to)
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.begin(OpRename, to); err != nil {
		return err
	}
	d, ino, err := s.lookup("rename", from)
	if err != nil {
		return err
	}
	if path.Dir(from) != path.Dir(to) {
		return &fs.PathError{Op: "rename", Path: to, Err: fs.ErrInvalid}
	}
	d.change(map[string]*inode{path.Base(from): nil, path.Base(to): ino})
	return nil
}

// Remove implements dumpdir.FS.
func (s *FS) Remove(name string) error {
	name = clean(name)
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.begin(OpRemove, name); err != nil {
		return err
	}
	d, _, err := s.lookup("remove", name)
	if err != nil {
		return err
	}
	d.change(map[string]*inode{path.Base(name): nil})
	return nil
}

// MkdirAll implements dumpdir.FS.
func (s *FS) MkdirAll(name string) error {
	name = clean(name)
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.begin(OpMkdir, name); err != nil {
		return err
	}
	for ; s.dirs[name] == nil; name = path.Dir(name) {
		s.dirs[name] = newDir()
	}
	return nil
}

// ReadDir implements dumpdir.FS. It lists files only.
func (s *FS) ReadDir(name string) ([]string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.off {
		return nil, ErrPowerCut
	}
	d := s.dirs[clean(name)]
	if d == nil {
		return nil, &fs.PathError{Op: "readdir", Path: name, Err: fs.ErrNotExist}
	}
	return slices.Sorted(keysOf(d.names)), nil
}

// SyncDir implements dumpdir.FS.
func (s *FS) SyncDir(name string) error {
	name = clean(name)
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.begin(OpSyncDir, name); err != nil {
		return err
	}
	d := s.dirs[name]
	if d == nil {
		return &fs.PathError{Op: "syncdir", Path: name, Err: fs.ErrNotExist}
	}
	if !s.ignored(OpSyncDir, name) {
		d.durable, d.log = cloneNames(d.names), nil
	}
	return nil
}

// Lock implements dumpdir.FS.
func (s *FS) Lock(name string) (io.Closer, error) {
	name = clean(name)
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.off:
		return nil, ErrPowerCut
	case s.dirs[name] == nil:
		return nil, &fs.PathError{Op: "lock", Path: name, Err: fs.ErrNotExist}
	case s.locks[name]:
		return nil, fmt.Errorf("%s: %w", name, dumpdir.ErrLocked)
	}
	s.locks[name] = true
	return &lock{s: s, name: name, epoch: s.epoch}, nil
}

type lock struct {
	s     *FS
	name  string
	epoch int
}

func (l *lock) Close() error {
	l.s.mu.Lock()
	defer l.s.mu.Unlock()
	if l.epoch == l.s.epoch {
		delete(l.s.locks, l.name)
	}
	return nil
}

// Bytes returns a copy of a file as programs see it. ok is false if there is none.
func (s *FS) Bytes(name string) (b []byte, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, ino, err := s.lookup("read", clean(name))
	if err != nil {
		return nil, false
	}
	return slices.Clone(ino.data), true
}

// SetBytes replaces the contents of a file, durably.
func (s *FS) SetBytes(name string, b []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	name = clean(name)
	d := s.dirs[path.Dir(name)]
	ino := newInode(b)
	d.names[path.Base(name)], d.durable[path.Base(name)] = ino, ino
}

// Flip flips a bit of a file, like bit rot. ok is false if there is no such byte.
func (s *FS) Flip(name string, off int64, bit int) (ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, ino, err := s.lookup("flip", clean(name))
	if err != nil || off >= int64(len(ino.data)) {
		return false
	}
	ino.data[off] ^= 1 << bit
	return true
}

// Clone returns an independent copy with everything durable.
func (s *FS) Clone() *FS {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := NewFS()
	for name, d := range s.dirs {
		nd := newDir()
		for n, ino := range d.names {
			nd.names[n] = newInode(ino.data)
		}
		nd.durable = cloneNames(nd.names)
		c.dirs[name] = nd
	}
	return c
}

// String lists the files with their lengths.
func (s *FS) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var b strings.Builder
	for _, dn := range slices.Sorted(keysOf(s.dirs)) {
		for _, n := range slices.Sorted(keysOf(s.dirs[dn].names)) {
			fmt.Fprintf(&b, "%s %d\n", path.Join(dn, n), len(s.dirs[dn].names[n].data))
		}
	}
	return b.String()
}
