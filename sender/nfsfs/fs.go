// Package nfsfs implements dumpdir.FS on an NFS server (version 3, AUTH_UNIX, TCP) without
// the kernel's client, through packages remotefs and nfs3.
//
// Writes are unstable (RFC 1813, section 3.3.7): the server may keep them in memory. Sync
// sends a COMMIT and compares the server's write verifier with that of the writes. If the
// server restarted in between, Sync fails, and the dump goes on from what is durable: the
// sender reads pages again and keeps none of them. Names need no sync. The server has to
// have CREATE, MKDIR, REMOVE, RENAME and SETATTR on its disk before it answers (RFC 1813,
// section 4.8), so SyncDir does nothing. An export with "async" breaks both promises.
//
// When the connection ends, so does the file system. A new one sees what its predecessor
// did and takes over its lock; no call is ever repeated.
//
// The server is not trusted: see package nfs3. An FS is safe for concurrent use.
package nfsfs

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"slices"
	"sync"
	"syscall"

	"github.com/corehaul/corehaul/sender/nfsfs/nfs3"
	"github.com/corehaul/corehaul/sender/remotefs"
)

// inFlight bounds the bytes in flight: what a line of 1 Gbit/s carries in 30 ms. On slow lines they are fewer.
const inFlight = 4 << 20

// FS is the file system of a server. The names of files are relative to a mounted directory.
type FS struct {
	*remotefs.FS
	c *nfs3.Client
}

// Mount mounts the directory dir of a server, or the nearest directory above dir that the server exports. The caller closes
// the FS. owner is a unique name for this process, of letters and digits. The errors are those of nfs3.Mount.
func Mount(ctx context.Context, where nfs3.Config, dir, owner string) (*FS, error) {
	c, err := nfs3.Mount(ctx, where, dir)
	if err != nil {
		return nil, err
	}
	s := &server{c: c, dirs: map[string]nfs3.FH{}}
	conf := remotefs.Config{Owner: owner, ReadLen: int(c.ReadLen), WriteLen: int(c.WriteLen), InFlight: inFlight, RoundTrip: c.RoundTrip}
	return &FS{FS: remotefs.New(s, conf), c: c}, nil
}

// Root is the directory that was asked for, relative to the mounted one.
func (f *FS) Root() string { return path.Clean(f.c.Rest) }

// LocalAddr is the address of this end of the connection.
func (f *FS) LocalAddr() string { return f.c.LocalAddr().String() }

// Close ends the connection.
func (f *FS) Close() { f.c.Close() }

// Lost reports whether err means that the connection to the server has ended.
func Lost(err error) bool {
	_, ok := errors.AsType[*nfs3.LostError](err)
	return ok
}

// server implements remotefs.Server.
type server struct {
	c *nfs3.Client

	mu   sync.Mutex
	dirs map[string]nfs3.FH // directories by their names
}

// maxDirs bounds the directories whose handles are kept.
const maxDirs = 64

// wrap adds the operation and the path on the server to an error.
func (s *server) wrap(op, name string, err error) error {
	if err == nil {
		return nil
	}
	return &fs.PathError{Op: "nfs " + op, Path: path.Join(s.c.Mounted, name), Err: err}
}

// dir returns the handle of a directory.
func (s *server) dir(name string) (nfs3.FH, error) {
	name = path.Clean(name)
	if name == "." {
		return s.c.Root, nil
	}
	s.mu.Lock()
	fh := s.dirs[name]
	s.mu.Unlock()
	if fh != nil {
		return fh, nil
	}
	parent, err := s.dir(path.Dir(name))
	if err != nil {
		return nil, err
	}
	fh, attr, err := s.c.Lookup(parent, path.Base(name))
	if err != nil {
		return nil, err
	}
	if !attr.Dir {
		return nil, syscall.ENOTDIR
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.dirs) >= maxDirs {
		clear(s.dirs)
	}
	s.dirs[name] = fh
	return fh, nil
}

// in calls do with the handle of the directory of a file and the name in it.
func (s *server) in(op, name string, do func(dir nfs3.FH, base string) error) error {
	return s.inDir(op, name, path.Dir(name), func(dir nfs3.FH) error { return do(dir, path.Base(name)) })
}

// inDir calls do with the handle of the directory parent, for an operation on name. If a kept handle is of a directory
// that is no longer there, it looks again.
func (s *server) inDir(op, name, parent string, do func(dir nfs3.FH) error) error {
	call := func() error {
		dir, err := s.dir(parent)
		if err != nil {
			return err
		}
		return do(dir)
	}
	err := call()
	if errors.Is(err, syscall.ESTALE) {
		s.forget()
		err = call() // the server did nothing
	}
	return s.wrap(op, name, err)
}

// forget drops all kept handles.
func (s *server) forget() {
	s.mu.Lock()
	defer s.mu.Unlock()
	clear(s.dirs)
}

// Open implements remotefs.Server.
func (s *server) Open(name string, flags int) (remotefs.Handle, func() error, error) {
	h := &handle{s: s, name: name}
	op, open := "open", s.lookup
	if flags&os.O_CREATE != 0 {
		op = "create"
		open = func(dir nfs3.FH, base string) (nfs3.FH, error) {
			return s.c.Create(dir, base, remotefs.FileMode, flags&os.O_EXCL != 0)
		}
	}
	err := s.in(op, name, func(dir nfs3.FH, base string) error {
		fh, err := open(dir, base)
		h.f = s.c.File(fh)
		return err
	})
	if err != nil {
		return nil, nil, err
	}
	return h, nil, nil
}

// lookup returns the handle of a regular file.
func (s *server) lookup(dir nfs3.FH, base string) (nfs3.FH, error) {
	fh, attr, err := s.c.Lookup(dir, base)
	if err == nil && !attr.Regular {
		err = errors.New("not a regular file")
	}
	return fh, err
}

// Rename implements remotefs.Server.
func (s *server) Rename(from, to string) error {
	err := s.in("rename", from, func(dir nfs3.FH, base string) error {
		toDir, err := s.dir(path.Dir(to))
		if err != nil {
			return err
		}
		return s.c.Rename(dir, base, toDir, path.Base(to))
	})
	s.forget() // it may have been a directory
	return err
}

// Remove implements remotefs.Server.
func (s *server) Remove(name string) error { return s.in("remove", name, s.c.Remove) }

// Mkdir implements remotefs.Server.
func (s *server) Mkdir(name string) error {
	return s.in("mkdir", name, func(dir nfs3.FH, base string) error {
		err := s.c.Mkdir(dir, base, remotefs.DirMode)
		if !errors.Is(err, fs.ErrExist) {
			return err
		}
		_, attr, lerr := s.c.Lookup(dir, base)
		switch {
		case lerr != nil || attr.Dir:
			return err
		case attr.Link:
			return fmt.Errorf("%w: it is a symbolic link, which is not followed on the server; put a directory in its place", err)
		}
		return fmt.Errorf("%w: it is no directory; move it away", err)
	})
}

// IsDir implements remotefs.Server.
func (s *server) IsDir(name string) (bool, error) {
	if path.Clean(name) == "." {
		return true, nil
	}
	isDir := false
	err := s.in("lookup", name, func(dir nfs3.FH, base string) error {
		_, attr, err := s.c.Lookup(dir, base)
		isDir = attr.Dir
		return err
	})
	return isDir, err
}

// ReadDir implements remotefs.Server.
func (s *server) ReadDir(name string) ([]string, error) {
	var names []string
	err := s.inDir("readdir", name, name, func(dir nfs3.FH) (err error) {
		names, err = s.c.ReadDir(dir)
		return err
	})
	slices.Sort(names)
	return names, err
}

// SyncDir implements remotefs.Server. The names are durable already.
func (s *server) SyncDir(string) error { return nil }

// Free implements remotefs.Server.
func (s *server) Free(name string) (int64, error) {
	free := int64(0)
	err := s.inDir("fsstat", name, name, func(dir nfs3.FH) (err error) {
		free, err = s.c.Free(dir)
		return err
	})
	return free, err
}
