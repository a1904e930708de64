package kdumpclients

import (
	"io/fs"
	"time"
)

// info is an entry of a tree as fs has it.
type info struct {
	name string
	size int64
	mod  time.Time
	dir  bool
}

func (i *info) Name() string       { return i.name }
func (i *info) Size() int64        { return i.size }
func (i *info) ModTime() time.Time { return i.mod }
func (i *info) IsDir() bool        { return i.dir }
func (i *info) Sys() any           { return nil }

// Mode is what a client may do: files are its own, and nobody else's.
func (i *info) Mode() fs.FileMode {
	if i.dir {
		return fs.ModeDir | 0o700
	}
	return 0o600
}
