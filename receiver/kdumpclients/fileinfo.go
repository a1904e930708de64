package kdumpclients

import (
	"io/fs"
	"time"
)

// fileInfo is an entry of a tree as fs has it.
type fileInfo struct {
	name string
	size int64
	mod  time.Time
	dir  bool
}

func (i *fileInfo) Name() string       { return i.name }
func (i *fileInfo) Size() int64        { return i.size }
func (i *fileInfo) ModTime() time.Time { return i.mod }
func (i *fileInfo) IsDir() bool        { return i.dir }
func (i *fileInfo) Sys() any           { return nil }

// Mode is what a client may do: files are its own, and nobody else's.
func (i *fileInfo) Mode() fs.FileMode {
	if i.dir {
		return fs.ModeDir | 0o700
	}
	return 0o600
}
