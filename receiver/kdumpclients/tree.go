package kdumpclients

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/corehaul/corehaul/internal/plainfile"
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
	// Create begins a file, anew if one has the name; an upload to that one that is still under way has lost it. Directories that are
	// missing are made: nobody's dump is lost for a mkdir.
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
	// Truncate sets the length. Bytes that a greater length promises have not come by that. Nothing is cut off a dump, nor off a
	// stream that was read.
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

// tree is a host as one peer sees it.
type tree struct {
	*host
	peer Peer
}

var _ Tree = (*tree)(nil)

func pathError(op, p string, err error) error { return &fs.PathError{Op: op, Path: p, Err: err} }

// Mkdir implements Tree.
func (t *tree) Mkdir(p string) error { return t.mkdir("mkdir", p, false) }

// MkdirAll implements Tree.
func (t *tree) MkdirAll(p string) error {
	err := t.mkdir("mkdir", p, false)
	if errors.Is(err, fs.ErrExist) && t.isDir(p) {
		return nil
	}
	return err
}

func (t *tree) isDir(p string) bool {
	st, err := t.Stat(p)
	return err == nil && st.IsDir()
}

func (t *tree) mkdir(op, p string, temp bool) error {
	c, err := cleanPath(p)
	if err != nil {
		return pathError(op, p, err)
	}
	err = t.change(func(s *hostState) error {
		if s.Dirs[c] != nil || s.file(c) != nil {
			return fs.ErrExist
		}
		if err := s.makeDirs(c, t.peer); err != nil {
			return err
		}
		s.Dirs[c].Temp = temp
		return nil
	})
	if err != nil {
		return pathError(op, p, err)
	}
	return nil
}

// makeDirs makes directory c and all above it that are missing.
func (s *hostState) makeDirs(c string, peer Peer) error {
	now := time.Now().UTC()
	for _, dir := range append(parents(c), c) {
		if s.Dirs[dir] != nil {
			continue
		}
		if s.file(dir) != nil {
			return syscall.ENOTDIR
		}
		if len(s.Dirs) >= maxDirs && !s.makeRoom(c) {
			return fmt.Errorf("%w: %d directories", syscall.ENOSPC, maxDirs)
		}
		s.Dirs[dir] = &dirState{Born: now, Used: now, Peer: peer.Addr}
	}
	return nil
}

// MkdirTemp implements Tree. The name is as mktemp's default template makes it.
func (t *tree) MkdirTemp(parent string) (string, error) {
	p := strings.TrimSuffix(parent, "/") + "/tmp." + rand.Text()[:10]
	return p, t.mkdir("mktemp", p, true)
}

// Rmdir implements Tree.
func (t *tree) Rmdir(p string) error {
	c, err := cleanPath(p)
	if err == nil {
		err = t.change(func(s *hostState) error {
			d := s.Dirs[c]
			switch {
			case d == nil && s.file(c) != nil:
				return syscall.ENOTDIR
			case d == nil:
				return fs.ErrNotExist
			case c == "/":
				return fs.ErrPermission
			case len(d.Files) > 0 || d.Dump != nil || s.hasDirs(c):
				return syscall.ENOTEMPTY
			}
			delete(s.Dirs, c)
			return nil
		})
	}
	if err != nil {
		return pathError("rmdir", p, err)
	}
	return nil
}

// Rename implements Tree.
func (t *tree) Rename(from, to string) error {
	a, err := cleanPath(from)
	if err != nil {
		return pathError("rename", from, err)
	}
	b, err := cleanPath(to)
	if err != nil {
		return pathError("rename", to, err)
	}
	if err := t.change(func(s *hostState) error { return t.rename(s, a, b) }); err != nil {
		return &os.LinkError{Op: "rename", Old: from, New: to, Err: err}
	}
	return nil
}

func (t *tree) rename(s *hostState, a, b string) error {
	f, dir := s.file(a), s.Dirs[path.Dir(b)]
	switch {
	case f == nil && s.Dirs[a] != nil:
		return fs.ErrPermission
	case f == nil || dir == nil:
		return fs.ErrNotExist
	case s.Dirs[b] != nil:
		return fs.ErrExist
	case a == b:
		return nil
	case dir != s.Dirs[path.Dir(a)] && (f.Status == fileArriving || t.busy(f.Num)):
		return syscall.EBUSY // another directory would be another dump
	}
	if old := dir.Files[path.Base(b)]; old != nil {
		t.drop(old)
	}
	dir.put(path.Base(b), f)
	delete(s.Dirs[path.Dir(a)].Files, path.Base(a))
	dir.Used, dir.Peer = time.Now().UTC(), t.peer.Addr
	return nil
}

// Stat implements Tree.
func (t *tree) Stat(p string) (fs.FileInfo, error) {
	c, err := cleanPath(p)
	if err != nil {
		return nil, pathError("stat", p, err)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if i := t.state.info(c); i != nil {
		return i, nil
	}
	return nil, pathError("stat", p, fs.ErrNotExist)
}

// ReadDir implements Tree.
func (t *tree) ReadDir(p string) ([]fs.FileInfo, error) {
	c, err := cleanPath(p)
	if err != nil {
		return nil, pathError("readdir", p, err)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	d := t.state.Dirs[c]
	if d == nil {
		return nil, pathError("readdir", p, fs.ErrNotExist)
	}
	names := slices.Collect(maps.Keys(d.Files))
	for q := range t.state.Dirs {
		if q != "/" && path.Dir(q) == c {
			names = append(names, path.Base(q))
		}
	}
	slices.Sort(names)
	out := make([]fs.FileInfo, 0, len(names))
	for _, name := range names {
		out = append(out, t.state.info(path.Join(c, name)))
	}
	return out, nil
}

// Open implements Tree.
func (t *tree) Open(p string) (Download, error) {
	c, err := cleanPath(p)
	if err != nil {
		return nil, pathError("open", p, err)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	f := t.state.file(c)
	switch {
	case f == nil && t.state.Dirs[c] != nil:
		return nil, pathError("open", p, syscall.EISDIR)
	case f == nil:
		return nil, pathError("open", p, fs.ErrNotExist)
	case f.Image != nil || f.Status == fileArriving:
		return nil, pathError("open", p, fs.ErrPermission)
	}
	file, err := plainfile.Open(t.path(f.Num, "file"))
	if err != nil {
		return nil, pathError("open", p, errors.Unwrap(err))
	}
	return &download{File: file, size: f.Size}, nil
}

// download is an open file, up to the length that it had when it was opened.
type download struct {
	*os.File
	size int64
}

// Size implements Download.
func (d *download) Size() int64 { return d.size }
