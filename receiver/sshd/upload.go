package sshd

import (
	"errors"
	"io"
	"sync"

	"github.com/corehaul/corehaul/receiver/kdumpclients"
)

// transferBytes is the length of one write to a file.
const transferBytes = 256 << 10

// upload is a file that a client sends. How it ends is decided only once.
type upload struct {
	kdumpclients.Upload
	mu     sync.Mutex
	failed error // first error of a write or of the connection
	once   sync.Once
	result error
}

// WriteAt writes a piece. After an error the file is incomplete.
func (u *upload) WriteAt(p []byte, off int64) (int, error) {
	n, err := u.Upload.WriteAt(p, off)
	if err != nil {
		u.TransferError(err)
	}
	return n, err
}

// TransferError notes that the file is incomplete. The first call counts.
func (u *upload) TransferError(err error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.failed == nil {
		u.failed = err
	}
}

// Close ends the file: as complete, unless there was an error before.
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

// fill writes all bytes of in. The error of a write is a *writeError.
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
