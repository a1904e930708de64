package stock

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"sync"
	"syscall"
	"time"
)

// maxSmall bounds a file that is no dump.
const maxSmall = 64 << 20

// errRevoked ends an upload whose file was begun anew.
var errRevoked = errors.New("the file was begun anew by another upload")

// upload is a file that arrives.
type upload struct {
	h    *host
	f    *fileState // its fields are under h.mu
	dir  *dirState
	name string

	mu   sync.Mutex
	raw  *os.File
	size int64
	err  error // the first failure; repeated ever after
	done bool
}

// Create implements Tree.
func (t *tree) Create(p string) (Upload, error) {
	c, err := cleanPath(p)
	if err != nil {
		return nil, pathError("create", p, err)
	}
	var u *upload
	err = t.change(func(s *hostState) error {
		u, err = t.create(s, c)
		return err
	})
	if err != nil {
		if u != nil {
			u.Abort(err)
		}
		return nil, pathError("create", p, err)
	}
	return u, nil
}

// create begins the file at cleaned path c. mu is held.
func (t *tree) create(s *hostState, c string) (*upload, error) {
	dir, name := s.Dirs[path.Dir(c)], path.Base(c)
	switch {
	case s.Dirs[c] != nil:
		return nil, syscall.EISDIR
	case dir == nil:
		return nil, fs.ErrNotExist
	case dir.Files[name] == nil && s.files() >= maxFiles:
		return nil, fmt.Errorf("%w: %d files", syscall.ENOSPC, maxFiles)
	}
	num := s.Next
	raw, err := os.OpenFile(t.filePath(num), os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o640)
	if err != nil {
		return nil, err
	}
	s.Next++
	if old := dir.Files[name]; old != nil {
		t.drop(old)
	}
	now := time.Now().UTC()
	f := &fileState{Num: num, Mod: now, Status: fileArriving}
	dir.put(name, f)
	dir.Used, dir.Peer = now, t.peer.Addr
	u := &upload{h: t.host, f: f, dir: dir, name: name, raw: raw}
	t.uploads[num] = u
	return u, nil
}

// WriteAt implements io.WriterAt.
func (u *upload) WriteAt(p []byte, off int64) (int, error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if err := u.check(); err != nil {
		return 0, err
	}
	if off < 0 || off > maxSmall-int64(len(p)) {
		return 0, u.fail(fmt.Errorf("%w: a file that is no dump may have %d bytes", syscall.EFBIG, int64(maxSmall)))
	}
	n, err := u.raw.WriteAt(p, off)
	u.size = max(u.size, off+int64(n))
	u.note()
	if err != nil {
		return n, u.fail(err)
	}
	return n, nil
}

// check returns the error that every call gets now. mu is held.
func (u *upload) check() error {
	if u.done && u.err == nil {
		return fs.ErrClosed
	}
	return u.err
}

func (u *upload) fail(err error) error {
	if u.err == nil {
		u.err = err
	}
	return u.err
}

// note tells the tree how much there is.
func (u *upload) note() {
	u.h.mu.Lock()
	defer u.h.mu.Unlock()
	now := time.Now().UTC()
	u.f.Size, u.f.Mod, u.dir.Used = u.size, now, now
}

// Truncate implements Upload.
func (u *upload) Truncate(size int64) error {
	u.mu.Lock()
	defer u.mu.Unlock()
	if err := u.check(); err != nil {
		return err
	}
	if size < 0 || size > maxSmall {
		return fs.ErrInvalid
	}
	if err := u.raw.Truncate(size); err != nil {
		return u.fail(err)
	}
	u.size = size
	u.note()
	return nil
}

// revoke takes the file away. It does not wait for a write that is under way.
func (u *upload) revoke() {
	go u.Abort(errRevoked) // it may wait for a write, which may wait for the host
}

// Close implements Upload.
func (u *upload) Close() error { return u.end(nil) }

// Abort implements Upload.
func (u *upload) Abort(err error) {
	if err == nil {
		err = errors.New("the connection broke off")
	}
	_ = u.end(err) // it is what the caller knows already
}

// end makes durable what came.
func (u *upload) end(cause error) error {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.done {
		return nil
	}
	u.done = true
	err := errors.Join(u.err, u.raw.Sync(), u.raw.Close())
	if err == nil {
		u.err = cause
	}
	return errors.Join(err, u.h.ended(u, errors.Join(err, cause)))
}

// ended notes what became of an upload.
func (h *host) ended(u *upload, cause error) error {
	return h.change(func(*hostState) error {
		if h.uploads[u.f.Num] != u {
			return nil
		}
		delete(h.uploads, u.f.Num)
		u.f.Status, u.dir.Used = fileWhole, time.Now().UTC()
		if cause != nil {
			u.f.Status, u.f.Reason = fileBroken, cause.Error()
		}
		return nil
	})
}
