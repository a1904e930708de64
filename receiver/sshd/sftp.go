package sshd

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"os"
	"sync"
	"syscall"

	"github.com/pkg/sftp"

	"github.com/corehaul/corehaul/receiver/kdumpclients"
)

// maxHandles bounds the open files and directories of one SFTP session.
const maxHandles = 32

// sftp serves the subsystem sftp, for scp since OpenSSH 9, sftp, curl and lftp.
func (ch *channel) sftp(ctx context.Context) {
	conn := newChannelConn(ch)
	defer conn.end()
	tree, err := ch.c.tree()
	if err != nil {
		ch.reportError(reason(err), exitFailure)
		_ = conn.closeWith(exitFailure)
		return
	}
	client := &idleConn{channelConn: conn, limit: ch.c.srv.cfg.ClientIdle}
	stream := newLockstep(client)
	client.owed = stream.owes
	server := sftp.NewRequestServer(stream, newFiles(tree, ch.c.failed).handlers())
	defer context.AfterFunc(ctx, func() { _ = conn.closeWith(exitFailure); _ = stream.Close() })()
	err = server.Serve()
	var silent *silentError
	if errors.As(err, &silent) {
		ch.reportError(silent.Error(), exitFailure)
		_ = conn.closeWith(exitFailure)
	}
	if err != nil && !errors.Is(err, io.EOF) {
		ch.c.failed("an SFTP session ended early", "error", err)
	}
}

// files serves the requests of one SFTP session. A file that the client leaves open is incomplete.
type files struct {
	tree kdumpclients.Tree
	note func(what string, args ...any) // to the log

	mu   sync.Mutex
	open int
	puts map[string]*put // files open for writing
}

func newFiles(tree kdumpclients.Tree, note func(what string, args ...any)) *files {
	return &files{tree: tree, note: note, puts: map[string]*put{}}
}

func (f *files) handlers() sftp.Handlers {
	return sftp.Handlers{FileGet: f, FilePut: f, FileCmd: f, FileList: f}
}

// openHandle counts a handle; closeHandle gives it back.
func (f *files) openHandle() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.open >= maxHandles {
		return fmt.Errorf("%w: %d in this session", syscall.EMFILE, maxHandles)
	}
	f.open++
	return nil
}

func (f *files) closeHandle(p *put) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.open--
	if p != nil && f.puts[p.path] == p {
		delete(f.puts, p.path)
	}
}

// refused logs a refused request and returns the error for SFTP.
func (f *files) refused(what, path string, err error) error {
	if err == nil {
		return nil
	}
	f.note("an SFTP request failed", "request", what, "path", clip(path), "error", clip(err.Error()))
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return os.ErrNotExist
	case errors.Is(err, fs.ErrPermission):
		return sftp.ErrSSHFxPermissionDenied
	case errors.Is(err, sftp.ErrSSHFxOpUnsupported):
		return sftp.ErrSSHFxOpUnsupported
	}
	return errors.New(reason(err))
}

// put is a file open for writing.
type put struct {
	upload
	files *files
	path  string
	done  sync.Once
}

// WriteAt implements io.WriterAt.
func (p *put) WriteAt(b []byte, off int64) (int, error) {
	if off < 0 {
		return 0, os.ErrInvalid
	}
	n, err := p.upload.WriteAt(b, off)
	return n, p.files.refused("write", p.path, err)
}

// Close ends the file.
func (p *put) Close() error {
	err := p.upload.Close()
	p.done.Do(func() { p.files.closeHandle(p) })
	if err != nil {
		p.files.note("an SFTP request failed", "request", "close", "path", clip(p.path), "error", clip(err.Error()))
		return &endError{err}
	}
	return nil
}

// Filewrite opens a file for writing.
func (f *files) Filewrite(r *sftp.Request) (io.WriterAt, error) {
	if r.Pflags().Append {
		return nil, f.refused("append", r.Filepath, sftp.ErrSSHFxOpUnsupported)
	}
	if err := f.openHandle(); err != nil {
		return nil, f.refused("open", r.Filepath, err)
	}
	u, err := f.tree.Create(r.Filepath)
	if err != nil {
		f.closeHandle(nil)
		return nil, f.refused("open", r.Filepath, err)
	}
	p := &put{upload: upload{Upload: u}, files: f, path: r.Filepath}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.puts[p.path] = p
	return p, nil
}

// get is a file open for reading.
type get struct {
	kdumpclients.Download
	files *files
	done  sync.Once
}

// ReadAt implements io.ReaderAt.
func (g *get) ReadAt(b []byte, off int64) (int, error) {
	if off < 0 {
		return 0, os.ErrInvalid
	}
	return g.Download.ReadAt(b, off)
}

// Close implements io.Closer.
func (g *get) Close() error {
	g.done.Do(func() { g.files.closeHandle(nil) })
	return g.Download.Close()
}

// Fileread opens a file for reading.
func (f *files) Fileread(r *sftp.Request) (io.ReaderAt, error) {
	if err := f.openHandle(); err != nil {
		return nil, f.refused("open", r.Filepath, err)
	}
	d, err := f.tree.Open(r.Filepath)
	if err != nil {
		f.closeHandle(nil)
		return nil, f.refused("open", r.Filepath, err)
	}
	return &get{Download: d, files: f}, nil
}

// Filecmd runs requests that need no open file.
func (f *files) Filecmd(r *sftp.Request) error {
	var err error
	switch r.Method {
	case "Mkdir":
		if err = f.tree.Mkdir(r.Filepath); errors.Is(err, fs.ErrExist) {
			return errors.New(reason(err)) // not logged: lftp makes all directories of a path
		}
	case "Rmdir":
		err = f.tree.Rmdir(r.Filepath)
	case "Rename":
		err = f.tree.Rename(r.Filepath, r.Target)
	case "Setstat":
		err = f.setstat(r)
	case "Remove":
		err = fs.ErrPermission
	default: // links
		err = sftp.ErrSSHFxOpUnsupported
	}
	return f.refused(r.Method, r.Filepath, err)
}

// setstat sets the length of an open file. It ignores permissions, owners and times.
func (f *files) setstat(r *sftp.Request) error {
	f.mu.Lock()
	p := f.puts[r.Filepath]
	f.mu.Unlock()
	switch sized := r.AttrFlags().Size; {
	case !sized && p == nil:
		_, err := f.tree.Stat(r.Filepath)
		return err
	case !sized:
		return nil
	case p == nil:
		return fs.ErrPermission
	}
	if attrs := r.Attributes(); attrs != nil && attrs.Size <= math.MaxInt64 {
		return p.Truncate(int64(attrs.Size))
	}
	return os.ErrInvalid
}

// Filelist describes a file, or the entries of a directory.
func (f *files) Filelist(r *sftp.Request) (sftp.ListerAt, error) {
	switch r.Method {
	case "List":
		return f.list(r.Filepath)
	case "Stat":
		info, err := f.tree.Stat(r.Filepath)
		if errors.Is(err, fs.ErrNotExist) {
			return nil, os.ErrNotExist // not logged: clients ask to find out
		}
		return entries{info}, f.refused("stat", r.Filepath, err)
	}
	return nil, f.refused(r.Method, r.Filepath, sftp.ErrSSHFxOpUnsupported)
}

// list opens a directory.
func (f *files) list(path string) (sftp.ListerAt, error) {
	if err := f.openHandle(); err != nil {
		return nil, f.refused("list", path, err)
	}
	infos, err := f.tree.ReadDir(path)
	if err != nil {
		f.closeHandle(nil)
		return nil, f.refused("list", path, err)
	}
	return &listing{entries: infos, files: f}, nil
}

// listing is an open directory.
type listing struct {
	entries
	files *files
	done  sync.Once
}

// Close implements io.Closer.
func (l *listing) Close() error {
	l.done.Do(func() { l.files.closeHandle(nil) })
	return nil
}

// entries describes files.
type entries []fs.FileInfo

// ListAt implements sftp.ListerAt.
func (e entries) ListAt(list []fs.FileInfo, off int64) (int, error) {
	if off < 0 || off >= int64(len(e)) {
		return 0, io.EOF
	}
	n := copy(list, e[off:])
	if n < len(list) {
		return n, io.EOF
	}
	return n, nil
}

// sftpSubsystem is the subsystem's name.
const sftpSubsystem = "sftp"
