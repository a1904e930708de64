package nfsfs

import (
	"errors"
	"io"

	"github.com/corehaul/corehaul/sender/nfsfs/nfs3"
)

// handle implements remotefs.Handle.
type handle struct {
	s    *server
	name string
	f    *nfs3.File
}

// ReadAt implements remotefs.Handle.
func (h *handle) ReadAt(p []byte, off int64) (int, error) {
	n, err := h.f.ReadAt(p, off)
	if err != nil && !errors.Is(err, io.EOF) {
		err = h.s.wrap("read", h.name, err)
	}
	return n, err
}

// WriteAt implements remotefs.Handle.
func (h *handle) WriteAt(p []byte, off int64) (int, error) {
	n, err := h.f.WriteAt(p, off)
	return n, h.s.wrap("write", h.name, err)
}

// Truncate implements remotefs.Handle.
func (h *handle) Truncate(size int64) error { return h.s.wrap("truncate", h.name, h.f.Truncate(size)) }

// Sync implements remotefs.Handle.
func (h *handle) Sync() error { return h.s.wrap("commit", h.name, h.f.Sync()) }

// Size implements remotefs.Handle.
func (h *handle) Size() (int64, error) {
	n, err := h.f.Size()
	return n, h.s.wrap("getattr", h.name, err)
}

// Close implements remotefs.Handle. NFS version 3 knows no open files.
func (h *handle) Close() error { return nil }
