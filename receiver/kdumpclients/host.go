package kdumpclients

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/corehaul/corehaul/internal/plainfile"
)

// host is what is kept of one host while the service runs.
type host struct {
	svc  *Service
	name string
	dir  string // on disk

	mu      sync.Mutex
	state   *hostState
	removed bool               // bytes of files went, and usage does not know
	uploads map[uint64]*upload // by number of the file

	usage usage
}

// tree is a host as one peer sees it.
type tree struct {
	*host
	peer Peer
}

var _ Tree = (*tree)(nil)

func pathError(op, p string, err error) error { return &fs.PathError{Op: op, Path: p, Err: err} }

// change runs fn on the state and makes what it did durable. If that cannot be done, the change is not
// taken back: the next one tries again.
func (h *host) change(fn func(*hostState) error) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	defer h.recount()
	if err := fn(h.state); err != nil {
		return err
	}
	return h.state.save(h.dir)
}

// recount gives back the room of files that were removed. mu is held.
func (h *host) recount() {
	if h.removed {
		h.removed = false
		h.unstage()
	}
}

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
			s.Dirs[dir] = &dirState{Born: now, Used: now, Temp: temp && dir == c, Peer: t.peer.Addr}
		}
		return nil
	})
	if err != nil {
		return pathError(op, p, err)
	}
	return nil
}

// makeRoom drops the directory that nobody has used for the longest, of those that are empty; clients that were cut off leave
// some. It drops none on the way to c.
func (s *hostState) makeRoom(c string) bool {
	oldest := ""
	for p, d := range s.Dirs {
		if len(d.Files) > 0 || d.Dump != nil || strings.HasPrefix(c+"/", p+"/") || p == "/" || s.hasDirs(p) {
			continue
		}
		if time.Since(d.Used) >= tempFor && (oldest == "" || d.Used.Before(s.Dirs[oldest].Used)) {
			oldest = p
		}
	}
	delete(s.Dirs, oldest)
	return oldest != ""
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

// hasDirs reports whether directory p has others in it.
func (s *hostState) hasDirs(p string) bool {
	for q := range s.Dirs {
		if q != "/" && path.Dir(q) == p {
			return true
		}
	}
	return false
}

// file returns the file at cleaned path c, nil when there is none.
func (s *hostState) file(c string) *fileState {
	if d := s.Dirs[path.Dir(c)]; d != nil {
		return d.Files[path.Base(c)]
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

func (d *dirState) put(name string, f *fileState) {
	if d.Files == nil {
		d.Files = map[string]*fileState{}
	}
	d.Files[name] = f
}

// drop deletes the bytes of a file that has no name any more, unless a dump is being made of it. mu is held.
func (h *host) drop(f *fileState) {
	if u := h.uploads[f.Num]; u != nil {
		delete(h.uploads, f.Num)
		u.revoke() // what it has written goes when it ends
		return
	}
	if !h.busy(f.Num) {
		h.remove(f.Num)
	}
}

// remove deletes the bytes of file num. mu is held.
func (h *host) remove(num uint64) {
	h.removed = true
	for _, kind := range []string{"file", "image", "map"} {
		if err := os.Remove(h.path(num, kind)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			h.svc.cfg.Log.Warn("cannot remove a staged file", "host", h.name, "error", err)
		}
	}
}

func (h *host) path(num uint64, kind string) string {
	return filepath.Join(h.dir, fmt.Sprintf("%d.%s", num, kind))
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

// info describes what is at cleaned path c, nil when nothing is.
func (s *hostState) info(c string) *info {
	if d := s.Dirs[c]; d != nil {
		return &info{name: path.Base(c), mod: d.Used, dir: true}
	}
	if f := s.file(c); f != nil {
		return &info{name: path.Base(c), size: f.Size, mod: f.Mod}
	}
	return nil
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
