package depotcopy

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/corehaul/corehaul/dumpdir"
	"github.com/corehaul/corehaul/internal/plainfile"
)

// Contents is what names, lengths and times of the files in a directory tell.
type Contents struct {
	// Own: the names are those of a dump directory. dumpdir.AtPath says by its files whether it is one.
	Own       bool
	Sealed    bool // it has SHA256SUMS
	Locked    bool // it has the lock file of a sender over NFS or SFTP
	Bytes     uint64
	Newest    time.Time // last change of a file, by the clock of whoever wrote it
	Signature string    // changes with any name, length or time
}

// lockName is the name of the lock file of senders: see docs/layout.md, part 2.
const lockName = "writer.lock"

// ContentsOf judges the regular files of a directory, sorted by name.
func ContentsOf(files []fs.FileInfo) Contents {
	var c Contents
	has := map[string]bool{}
	h := sha256.New()
	for _, st := range files {
		has[st.Name()] = true
		_, _ = fmt.Fprintf(h, "%s\x00%d %d\n", st.Name(), st.Size(), st.ModTime().UnixNano()) // a hash takes everything
		c.Bytes += plainfile.Blocks(st)
		if st.ModTime().After(c.Newest) {
			c.Newest = st.ModTime()
		}
	}
	c.Sealed, c.Locked = has[dumpdir.SumsName], has[lockName]
	c.Own = has[dumpdir.JournalName] || has[dumpdir.ManifestName] && c.Sealed
	c.Signature = hex.EncodeToString(h.Sum(nil)[:16])
	return c
}

// maxNames bounds the names of a dump directory. A dump has a dozen files, and its directory of others dumpdir.MaxKept.
const maxNames = 4096

// Look looks at a directory. It refuses one with more than 4096 names.
func Look(dir *os.Root) (Contents, error) {
	d, err := dir.Open(".")
	if err != nil {
		return Contents{}, err
	}
	defer func() { _ = d.Close() }() // only read
	entries, err := d.ReadDir(maxNames + 1)
	switch {
	case len(entries) > maxNames:
		return Contents{}, fmt.Errorf("%s has more than %d names", dir.Name(), maxNames)
	case err != nil && !errors.Is(err, io.EOF):
		return Contents{}, err
	}
	slices.SortFunc(entries, func(a, b fs.DirEntry) int { return strings.Compare(a.Name(), b.Name()) })
	var files []fs.FileInfo
	for _, e := range entries {
		if !e.Type().IsRegular() {
			continue
		}
		st, err := dir.Lstat(e.Name())
		switch {
		case errors.Is(err, fs.ErrNotExist): // removed meanwhile
		case err != nil:
			return Contents{}, err
		default:
			files = append(files, st)
		}
	}
	return ContentsOf(files), nil
}

// LockSilence is how long the files of a sealed dump, with its lock file, must not have changed before its sender counts as gone. A sender that lives
// changes the lock file every 3 seconds.
const LockSilence = time.Minute

// IsHeld reports whether a process of this machine has the lock of a dump directory: a sender that writes to a local disk, or a receiver. Where
// the file system has no such locks, it reports false.
func IsHeld(dir *os.Root) (bool, error) {
	d, err := dir.Open(".")
	if err != nil {
		return false, err
	}
	lock, err := dumpdir.LockDir(d, dir.Name())
	if err != nil {
		return errors.Is(err, dumpdir.ErrLocked), nil
	}
	return false, lock.Close()
}
