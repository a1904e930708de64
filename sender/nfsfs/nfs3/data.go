package nfs3

import (
	"errors"
	"fmt"
	"io"
	"sync"

	"github.com/vmware/go-nfs-client/nfs"
)

// Values of stable_how, RFC 1813, section 3.3.7. A server may do more than asked for.
const (
	unstable = 0
	fileSync = 2
)

// ErrNotCommitted means that the server restarted, or failed to write to its disk, and may have lost what it had acknowledged
// since the last Sync.
var ErrNotCommitted = errors.New("the server lost writes that were not committed: its write verifier has changed")

// File is a regular file. It implements io.ReaderAt and io.WriterAt. Reads and writes may come at the same time.
type File struct {
	c  *Client
	fh FH

	mu sync.Mutex
	// writes counts the unstable ones. They are not durable before a COMMIT with the verifier of all of them.
	writes, committed uint64
	verf              uint64
	err               error // why what was written may be lost; it stays
}

// File returns the file of a handle.
func (c *Client) File(fh FH) *File { return &File{c: c, fh: fh} }

// ReadAt implements io.ReaderAt.
func (f *File) ReadAt(p []byte, off int64) (int, error) {
	for done := 0; done < len(p); {
		n, eof, err := f.read(p[done:min(done+int(f.c.ReadLen), len(p))], off+int64(done))
		done += n
		switch {
		case err != nil:
			return done, err
		case eof && done < len(p):
			return done, io.EOF
		case n == 0:
			return done, errors.New("the server reads nothing, and the file does not end")
		}
	}
	return len(p), nil
}

// read does one READ. It may return less than len(p) before the end of the file.
func (f *File) read(p []byte, off int64) (n int, eof bool, err error) {
	args := &struct {
		FH    []byte
		Off   uint64
		Count uint32
	}{f.fh, uint64(off), uint32(len(p))} //nolint:gosec // offsets are not negative, pieces are at most MaxTransfer
	var res struct {
		Attr   nfs.PostOpAttr
		Count  uint32
		EOF    bool
		Length uint32 // of the data that follows
	}
	data, err := f.c.do(nfs.NFSProc3Read, args, nil, &res)
	if err != nil {
		return 0, false, err
	}
	if res.Count != res.Length || int(res.Count) > len(p) || int(res.Count) > len(data) {
		return 0, false, fmt.Errorf("the server answers a read of %d bytes with %d, %d and %d", len(p), res.Count, res.Length, len(data))
	}
	return copy(p, data[:res.Count]), res.EOF, nil
}

// WriteAt implements io.WriterAt. What is written is durable after Sync.
func (f *File) WriteAt(p []byte, off int64) (int, error) {
	for done := 0; done < len(p); {
		n, err := f.write(p[done:min(done+int(f.c.WriteLen), len(p))], off+int64(done))
		done += n
		if err != nil {
			return done, err
		}
	}
	return len(p), nil
}

// write does one WRITE. It may write less than p, but not nothing.
func (f *File) write(p []byte, off int64) (int, error) {
	args := &struct {
		FH    []byte
		Off   uint64
		Count uint32
		How   uint32
	}{f.fh, uint64(off), uint32(len(p)), unstable} //nolint:gosec // offsets are not negative, pieces are at most MaxTransfer
	var res struct {
		Wcc   nfs.WccData
		Count uint32
		How   uint32
		Verf  uint64
	}
	if _, err := f.c.do(nfs.NFSProc3Write, args, p, &res); err != nil {
		return 0, err
	}
	if res.Count == 0 || int(res.Count) > len(p) || res.How > fileSync {
		return 0, fmt.Errorf("the server says that it wrote %d of %d bytes with stable_how %d", res.Count, len(p), res.How)
	}
	if res.How == unstable {
		f.note(res.Verf)
	}
	return int(res.Count), nil
}

// note notes the verifier of an unstable write.
func (f *File) note(verf uint64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.writes != f.committed && verf != f.verf {
		f.fail(ErrNotCommitted)
	}
	f.writes++
	f.verf = verf
}

// Sync makes all writes durable that were answered before it. It commits the whole file, because an earlier writer may have left
// something. After an error, it always returns this error.
func (f *File) Sync() error {
	f.mu.Lock()
	writes, verf := f.writes, f.verf
	f.mu.Unlock()
	args := &struct {
		FH    []byte
		Off   uint64
		Count uint32 // 0 means up to the end
	}{FH: f.fh}
	var res struct {
		Wcc  nfs.WccData
		Verf uint64
	}
	_, err := f.c.do(nfs.NFSProc3Commit, args, nil, &res)
	f.mu.Lock()
	defer f.mu.Unlock()
	switch {
	case err != nil:
		f.fail(err) // the server may have dropped what it could not write
	case writes != f.committed && res.Verf != verf:
		f.fail(ErrNotCommitted)
	}
	if f.err == nil {
		f.committed = max(f.committed, writes)
	}
	return f.err
}

// fail sets f.err, unless it is set. mu is held.
func (f *File) fail(err error) {
	if f.err == nil {
		f.err = err
	}
}

// Truncate sets the length. It is durable when it returns.
func (f *File) Truncate(size int64) error {
	return f.c.SetSize(f.fh, uint64(size)) //nolint:gosec // sizes are not negative
}

// Size returns the length in bytes.
func (f *File) Size() (int64, error) {
	attr, err := f.c.GetAttr(f.fh)
	return attr.Size, err
}
