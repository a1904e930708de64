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

// Tree is the file tree that one host sees. Methods take paths as the client sends them. They resolve relative ones from the root,
// remove repeated slashes and dots, and never leave the tree. Errors match fs.ErrNotExist, fs.ErrExist, fs.ErrPermission,
// fs.ErrInvalid (an invalid path or call), or syscall.ENOSPC (a limit of the host or the disk). Changes of the tree are durable on return.
type Tree interface {
	// Mkdir makes a directory and its missing parents. Old clients expect theirs to exist, but a tree begins empty. The error
	// matches fs.ErrExist if p exists.
	Mkdir(p string) error
	// MkdirAll is Mkdir, but succeeds if the directory exists.
	MkdirAll(p string) error
	// MkdirTemp makes a directory with a random name in parent, as mktemp -d does, and returns its path. The tree
	// removes it after an hour unless Rmdir did.
	MkdirTemp(parent string) (string, error)
	// Rmdir removes an empty directory.
	Rmdir(p string) error
	// Rename renames a file and replaces a file of the new name. It does not rename directories. It returns syscall.EBUSY for a
	// move to another directory of a file that is arriving or being imported.
	Rename(from, to string) error
	// Create creates a file or replaces an old one. An unfinished upload to the old one fails from then on. Create makes missing
	// directories, so that no dump is lost for want of a mkdir.
	Create(p string) (Upload, error)
	// Open opens a small file for reading. Dumps cannot be read: fs.ErrPermission.
	Open(p string) (Download, error)
	// Stat describes a file or directory. The size of a file is the length that the client gave it.
	Stat(p string) (fs.FileInfo, error)
	// ReadDir describes the entries of a directory, sorted by name.
	ReadDir(p string) ([]fs.FileInfo, error)
	// Free returns how many more bytes the host may store. It accepts any path.
	Free(p string) (bytes uint64, err error)
}

// Upload is an arriving file. Close or Abort ends it. Later calls do nothing.
type Upload interface {
	// WriteAt takes bytes of the file in any order. It unpacks a stream (flattened or compressed) as it arrives, and blocks
	// meanwhile. It puts bytes of a stream aside, up to a bound, until all bytes before them have come.
	io.WriterAt
	// Truncate sets the length. Bytes that a greater length adds stay missing. A dump cannot be made shorter. The length of a
	// stream cannot change once it was read.
	Truncate(size int64) error
	// Close ends a file that the client has sent in full. On return the file is durable. The error tells the client what is wrong
	// with its file.
	Close() error
	// Abort ends a file whose connection broke with err. The bytes so far are kept, because they may be a usable dump.
	Abort(err error)
}

// Download is a small file, open for reading.
type Download interface {
	io.ReaderAt
	io.Closer
	// Size returns the length in bytes.
	Size() int64
}

// tree is the Tree of a host for one peer.
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

// makeDirs makes directory c and its missing parents.
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

// MkdirTemp implements Tree. The name follows mktemp's default template.
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

// download is an open file with the length that it had when it was opened.
type download struct {
	*os.File
	size int64
}

// Size implements Download.
func (d *download) Size() int64 { return d.size }
