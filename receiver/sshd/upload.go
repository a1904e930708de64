package sshd

import (
	"errors"
	"io"
	"sync"

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
