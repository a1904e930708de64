package lab

import (
	"fmt"
	"io"
	"path"
	"slices"
)

// A cpioWriter writes an initramfs in the newc format (kernel:
// Documentation/driver-api/early-userspace/buffer-format.rst). It does not compress,
// because under TCG unpacking takes longer than reading. Close returns the first error.
type cpioWriter struct {
	w    io.Writer
	n    int64 // bytes written
	ino  int
	dirs []string
	err  error
}

const (
	modeDir  = 0o040755
	modeFile = 0o100755
)

func (c *cpioWriter) write(p []byte) {
	if c.err != nil {
		return
	}
	var n int
	n, c.err = c.w.Write(p)
	c.n += int64(n)
}

func (c *cpioWriter) pad() { c.write(make([]byte, -c.n&3)) }

func (c *cpioWriter) entry(name string, mode int, data []byte) {
	c.ino++
	c.write(fmt.Appendf(nil, "070701%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%s\x00",
		c.ino, mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(name)+1, 0, name))
	c.pad()
	c.write(data)
	c.pad()
}

// file adds a file that anybody may execute, and the directories above it.
// The name is absolute.
func (c *cpioWriter) file(name string, data []byte) {
	c.dir(path.Dir(name))
	c.entry(name[1:], modeFile, data)
}

func (c *cpioWriter) dir(name string) {
	if name == "/" || slices.Contains(c.dirs, name) {
		return
	}
	c.dir(path.Dir(name))
	c.dirs = append(c.dirs, name)
	c.entry(name[1:], modeDir, nil)
}

// Close writes the trailer and returns the first error of all writes.
func (c *cpioWriter) Close() error {
	c.entry("TRAILER!!!", 0, nil)
	return c.err
}
