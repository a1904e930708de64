package kdumpclients

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"github.com/corehaul/corehaul/dumpcopy"
	"github.com/corehaul/corehaul/internal/plainfile"
	"github.com/corehaul/corehaul/kernel/printk"
)

// longLog keeps a log that is too large for a small file. The kernel's log may have 2 GiB, and its end is about the crash.
// The file has the first part of the log, and behind it a ring with the last part, until the upload ends.
type longLog struct {
	most int64 // bytes of the file
	// whole searches the arriving log for its panic line. It is nil once bytes came out of order. Then a panic line in
	// the middle is not found.
	whole *printk.TitleScanner
}

// logHead returns the length of the first part of a file of most bytes.
func logHead(most int64) int64 { return most / 8 }

// place returns the place of byte off of a log in its file, and how many bytes can be written there.
func (l *longLog) place(off int64) (at, room int64) {
	if head := logHead(l.most); off >= l.most {
		off = head + (off-head)%(l.most-head)
	}
	return off, l.most - off
}

// observe adds bytes of the log to the search for its panic line.
func (l *longLog) observe(p []byte, off int64) {
	if l.whole == nil {
		return
	}
	if uint64(off) != l.whole.Bytes() { //nolint:gosec // not negative
		l.whole = nil
		return
	}
	_, _ = l.whole.Write(p) // never fails
}

// title returns the panic line, if it is known.
func (l *longLog) title() string {
	if l.whole == nil {
		return ""
	}
	return l.whole.Line()
}

// writeLog is writeFile for a log.
func (u *upload) writeLog(p []byte, off int64) error {
	u.log.observe(p, off)
	for len(p) > 0 {
		at, room := u.log.place(off)
		n := min(int64(len(p)), room)
		if err := u.writeRaw(p[:n], at); err != nil {
			return err
		}
		p, off = p[n:], off+n
	}
	return nil
}

// unroll puts the ring of a log in order, with a mark for the missing middle.
func (u *upload) unroll() error {
	if u.log == nil || u.size <= u.log.most {
		return nil
	}
	most, head := u.log.most, logHead(u.log.most)
	if !u.have.Has(0, most) {
		return fmt.Errorf("%w: parts of a log of %d bytes did not arrive", fs.ErrInvalid, u.size)
	}
	if err := u.h.roomOf(u, most); err != nil { // released when the files of the host are counted
		return err
	}
	name := u.h.path(u.f.Num, "image")
	out, err := plainfile.Create(name, 0o640)
	if err != nil {
		return err
	}
	oldest, room := u.log.place(u.size)
	n, err := io.Copy(out, io.MultiReader(
		io.NewSectionReader(u.raw, 0, head),
		printk.Mark(uint64(u.size-most), u.log.title()), //nolint:gosec // positive
		io.NewSectionReader(u.raw, oldest, room), io.NewSectionReader(u.raw, head, oldest-head)))
	if err == nil {
		err = os.Rename(name, u.h.path(u.f.Num, "file"))
	}
	if err != nil {
		return errors.Join(fmt.Errorf("a log of %d bytes: %w", u.size, err), out.Close(), os.Remove(name))
	}
	old := u.raw
	u.raw, u.size = out, n
	u.updateState()
	return old.Close()
}

// cutLog cuts a log with a ring to its first part after a restart, because the order of the ring is unknown.
func (h *host) cutLog(name string, f *fileState) error {
	if !dumpcopy.IsLog(name) || f.Size < h.svc.cfg.small {
		return nil
	}
	f.Size = logHead(h.svc.cfg.small)
	return os.Truncate(h.path(f.Num, "file"), f.Size)
}
