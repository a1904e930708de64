package sshd

import (
	"errors"
	"io"
	"io/fs"
	"sync"
	"syscall"

	"github.com/corehaul/corehaul/receiver/kdumpclients"
)

// transferBytes is how much of a file is handed on at once.
const transferBytes = 256 << 10

// upload is a file that a client sends, with an end that is decided once.
type upload struct {
	kdumpclients.Upload
	mu     sync.Mutex
	failed error // of the first write that failed, or the break of the connection
	once   sync.Once
	result error
}

// WriteAt writes a piece. After an error the file is not what the client thinks.
func (u *upload) WriteAt(p []byte, off int64) (int, error) {
	n, err := u.Upload.WriteAt(p, off)
	if err != nil {
		u.TransferError(err)
	}
	return n, err
}

// TransferError says that the file has not come whole; the first call counts.
func (u *upload) TransferError(err error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.failed == nil {
		u.failed = err
	}
}

// Close ends the file: in order, unless something was wrong with it before.
func (u *upload) Close() error {
	u.once.Do(func() {
		u.mu.Lock()
		failed := u.failed
		u.mu.Unlock()
		if failed != nil {
			u.Abort(failed)
			u.result = failed
			return
		}
		u.result = u.Upload.Close()
	})
	return u.result
}

// fill writes what comes from in. The error of a write is a *writeError.
func (u *upload) fill(in io.Reader) (n int64, err error) {
	buf := make([]byte, transferBytes)
	for {
		got, rerr := in.Read(buf)
		if got > 0 {
			if _, err := u.WriteAt(buf[:got], n); err != nil {
				return n, &writeError{err}
			}
			n += int64(got)
		}
		switch {
		case errors.Is(rerr, io.EOF):
			return n, nil
		case rerr != nil:
			u.TransferError(rerr)
			return n, rerr
		}
	}
}

// writeError is an error of the tree, not of the connection.
type writeError struct{ err error }

func (e *writeError) Error() string { return reason(e.err) }
func (e *writeError) Unwrap() error { return e.err }

// reasons are what Unix programs say of errors. ENOTEMPTY is an fs.ErrExist too.
var reasons = []struct {
	err  error
	text string
}{
	{syscall.ENOTEMPTY, "Directory not empty"},
	{syscall.ENOTDIR, "Not a directory"},
	{syscall.EISDIR, "Is a directory"},
	{syscall.EFBIG, "File too large"},
	{syscall.EMFILE, "Too many open files"},
	{syscall.EBUSY, "Device or resource busy"},
	{syscall.ENOSPC, "No space left on device"},
	{fs.ErrNotExist, "No such file or directory"},
	{fs.ErrExist, "File exists"},
	{fs.ErrPermission, "Permission denied"},
	{fs.ErrInvalid, "Invalid argument"},
}

// reason is what Unix programs say of an error. Texts of other errors may name what is not the
// client's business.
func reason(err error) string {
	var silent *silentError
	if errors.As(err, &silent) {
		return silent.Error()
	}
	for _, r := range reasons {
		if errors.Is(err, r.err) {
			return r.text
		}
	}
	return "Input/output error"
}
