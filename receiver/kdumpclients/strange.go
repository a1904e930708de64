package kdumpclients

import (
	"errors"
	"fmt"
	"io/fs"

	"github.com/corehaul/corehaul/dumpcopy"
)

// StrangeFileError says why a file cannot be read as a dump. It is also for the client: after an error, a kdump client may
// send the dump in another way, as Debian's does.
type StrangeFileError struct {
	text string
	err  error
}

// Error returns one line, without anything that clients must not see.
func (e *StrangeFileError) Error() string { return e.text }

// Unwrap returns the cause, whose text is not for the client, or nil.
func (e *StrangeFileError) Unwrap() error { return e.err }

// keepAsSent ends a sink that found no dump. The file has the bytes as the client sent them, and keeps them.
func (u *upload) keepAsSent() {
	err := u.sink.finish()
	u.sink = nil
	switch _, ofDisk := errors.AsType[*fs.PathError](err); {
	case ofDisk:
		u.err = err
	case err != nil && !errors.Is(err, errNoDump):
		u.strange = &StrangeFileError{fmt.Sprintf("no dump can be unpacked: %v", err), err}
	}
}

// leastDump is the length of the shortest file that may be a dump. Files that clients name for the dump, with its checksum or
// its length, are shorter.
const leastDump = 4096

// strangeness returns why the file is not what its name says: a dump that can be read.
func (u *upload) strangeness() error {
	if u.strange == nil && u.img == nil && u.form == formPlain && u.decided && u.size >= leastDump && dumpcopy.IsDump(u.name) {
		u.strange = &StrangeFileError{"the file is in no format that is known for a dump: ELF, kdump-compressed or flattened, plain or in " +
			"bzip2, gzip, lz4, xz or zstd", nil}
	}
	return u.strange
}
