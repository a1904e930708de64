package sshd

import (
	"bytes"
	"io/fs"
	"path"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/corehaul/corehaul/receiver/kdumpclients"
)

// memTree is a tree in memory, with room for memRoom bytes a file: a model that fuzzing can ask a thousand
// times a second.
type memTree struct {
	mu      sync.Mutex
	dirs    map[string]bool
	files   map[string]*bytes.Reader
	aborted map[string]error
	open    int
}

const memRoom = 1 << 20

func newMemTree() *memTree {
	return &memTree{dirs: map[string]bool{"/": true}, files: map[string]*bytes.Reader{}, aborted: map[string]error{}}
}

func clean(p string) string { return path.Clean("/" + p) }

func (t *memTree) Mkdir(p string) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.dirs[clean(p)] || t.files[clean(p)] != nil {
		return fs.ErrExist
	}
	t.dirs[clean(p)] = true
	return nil
}

func (t *memTree) MkdirAll(p string) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.dirs[clean(p)] = true
	return nil
}

func (t *memTree) MkdirTemp(parent string) (string, error) {
	p := path.Join(clean(parent), "tmp.1")
	return p, t.Mkdir(p)
}

func (t *memTree) Rmdir(p string) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.dirs[clean(p)] {
		return fs.ErrNotExist
	}
	delete(t.dirs, clean(p))
	return nil
}

func (t *memTree) Rename(from, to string) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	f := t.files[clean(from)]
	if f == nil {
		return fs.ErrNotExist
	}
	delete(t.files, clean(from))
	t.files[clean(to)] = f
	return nil
}

func (t *memTree) Create(p string) (kdumpclients.Upload, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.dirs[path.Dir(clean(p))] {
		return nil, fs.ErrNotExist
	}
	t.open++
	return &memUpload{tree: t, name: clean(p)}, nil
}

func (t *memTree) Open(p string) (kdumpclients.Download, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	f := t.files[clean(p)]
	if f == nil {
		return nil, fs.ErrNotExist
	}
	t.open++
	return &memDownload{Reader: f, tree: t}, nil
}

func (t *memTree) Stat(p string) (fs.FileInfo, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.stat(clean(p))
}

func (t *memTree) stat(p string) (fs.FileInfo, error) {
	if t.dirs[p] {
		return memInfo{name: path.Base(p), dir: true}, nil
	}
	if f := t.files[p]; f != nil {
		return memInfo{name: path.Base(p), size: f.Size()}, nil
	}
	return nil, fs.ErrNotExist
}

func (t *memTree) ReadDir(p string) (list []fs.FileInfo, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.dirs[clean(p)] {
		return nil, fs.ErrNotExist
	}
	for name := range t.files {
		if path.Dir(name) == clean(p) {
			info, err := t.stat(name)
			if err != nil {
				return nil, err
			}
			list = append(list, info)
		}
	}
	slices.SortFunc(list, func(a, b fs.FileInfo) int { return strings.Compare(a.Name(), b.Name()) })
	return list, nil
}

func (t *memTree) Free(string) (uint64, error) { return 5 << 30, nil }

type memUpload struct {
	tree *memTree
	name string
	mu   sync.Mutex
	b    []byte
	over bool
}

func (u *memUpload) WriteAt(p []byte, off int64) (int, error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if off < 0 || off > memRoom || off+int64(len(p)) > memRoom {
		return 0, syscall.ENOSPC
	}
	if need := int(off) + len(p); need > len(u.b) {
		u.b = append(u.b, make([]byte, need-len(u.b))...)
	}
	return copy(u.b[off:], p), nil
}

func (u *memUpload) Truncate(size int64) error {
	u.mu.Lock()
	defer u.mu.Unlock()
	if size < 0 || size > memRoom {
		return syscall.ENOSPC
	}
	u.b = append(u.b, make([]byte, max(0, int(size)-len(u.b)))...)[:size]
	return nil
}

func (u *memUpload) end(err error) {
	u.tree.mu.Lock()
	defer u.tree.mu.Unlock()
	if u.over {
		panic("an upload that has ended ends again")
	}
	u.over = true
	u.tree.open--
	u.tree.files[u.name] = bytes.NewReader(u.b)
	if err != nil {
		u.tree.aborted[u.name] = err
	}
}

func (u *memUpload) Close() error    { u.end(nil); return nil }
func (u *memUpload) Abort(err error) { u.end(err) }

type memDownload struct {
	*bytes.Reader
	tree *memTree
}

func (d *memDownload) Close() error {
	d.tree.mu.Lock()
	defer d.tree.mu.Unlock()
	d.tree.open--
	return nil
}

type memInfo struct {
	name string
	size int64
	dir  bool
}

func (i memInfo) Name() string     { return i.name }
func (i memInfo) Size() int64      { return i.size }
func (memInfo) ModTime() time.Time { return time.Unix(1_700_000_000, 0) }
func (i memInfo) IsDir() bool      { return i.dir }
func (memInfo) Sys() any           { return nil }
func (i memInfo) Mode() fs.FileMode {
	if i.dir {
		return fs.ModeDir | 0o700
	}
	return 0o600
}
