package sftpfs

import (
	"errors"
	"io"

	"github.com/pkg/sftp"
)

// handle implements remotefs.Handle.
type handle struct {
	s    *server
	name string
	h    *sftp.File
}

// ReadAt implements remotefs.Handle.
func (h *handle) ReadAt(p []byte, off int64) (int, error) {
	n, err := h.h.ReadAt(p, off)
	if err != nil && !errors.Is(err, io.EOF) {
		err = wrap("read", h.name, err)
	}
	return n, err
}

// WriteAt implements remotefs.Handle.
func (h *handle) WriteAt(p []byte, off int64) (int, error) {
	n, err := h.h.WriteAt(p, off)
	return n, h.s.failed("write", h.name, err)
}

// Truncate implements remotefs.Handle.
func (h *handle) Truncate(size int64) error {
	return h.s.failed("truncate", h.name, h.h.Truncate(size))
}

// Sync implements remotefs.Handle. Without fsync on the server, it does nothing.
func (h *handle) Sync() error {
	if !h.s.fsync {
		return nil
	}
	return h.s.failed("fsync", h.name, h.h.Sync())
}

// Size implements remotefs.Handle.
func (h *handle) Size() (int64, error) {
	st, err := h.h.Stat()
	if err != nil {
		return 0, wrap("stat", h.name, err)
	}
	return st.Size(), nil
}

// Close implements remotefs.Handle.
func (h *handle) Close() error { return wrap("close", h.name, h.h.Close()) }
