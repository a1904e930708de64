package dumpdir

import (
	"errors"
	"path"
)

// journalWriter appends records to a journal. One goroutine uses it at a time.
type journalWriter struct {
	f    File
	size int64 // where the next record goes
	buf  []byte

	reserved int64 // space is allocated up to here
}

// Space is allocated behind the journal's end, so that a dump can be sealed on a full disk: the seal record goes
// there. What is left is released for manifest and sums.
const (
	reserveMin  = 64 << 10 // allocate more below this
	reserveStep = 4 * reserveMin
)

// reserve allocates more space behind the end, before a batch is written. So a full disk is noticed while there is
// still enough space.
func (w *journalWriter) reserve(batch int64) error {
	a, ok := w.f.(Allocator)
	if !ok || w.size+batch+reserveMin <= w.reserved {
		return nil
	}
	if err := a.Allocate(w.size, batch+reserveStep); err != nil {
		return err
	}
	w.reserved = w.size + batch + reserveStep
	return nil
}

// giveBack releases the allocated space.
func (w *journalWriter) giveBack() error {
	if w.reserved == 0 {
		return nil
	}
	w.reserved = 0
	return w.f.Truncate(w.size)
}

// add queues a record; flush writes it.
func (w *journalWriter) add(t recordType, payload []byte) {
	w.buf = appendRecord(w.buf, w.size+int64(len(w.buf)), t, payload)
}

// flush writes the queued records without a sync.
func (w *journalWriter) flush() error {
	if _, err := w.f.WriteAt(w.buf, w.size); err != nil {
		return err
	}
	w.size += int64(len(w.buf))
	w.buf = w.buf[:0]
	return nil
}

// commit makes the queued records durable.
func (w *journalWriter) commit() error {
	if err := w.flush(); err != nil {
		return err
	}
	return w.f.Sync()
}

// addPieces queues p in records of at most pieceLen bytes, and flushes in between.
func (w *journalWriter) addPieces(t recordType, p []byte) error {
	for len(p) > 0 {
		n := min(len(p), pieceLen)
		w.add(t, p[:n])
		p = p[n:]
		if err := w.flush(); err != nil {
			return err
		}
	}
	return nil
}

// newJournal begins a journal under a temporary name; publish renames it.
func newJournal(fsys FS, dir string, ident identRecord, version uint16) (*journalWriter, error) {
	f, err := fsys.Create(path.Join(dir, JournalName+tmpSuffix))
	if err != nil {
		return nil, err
	}
	return beginJournal(f, ident, version), nil
}

// beginJournal begins a journal in an empty file.
func beginJournal(f File, ident identRecord, version uint16) *journalWriter {
	w := &journalWriter{f: f, buf: journalHeader(version)}
	w.add(recIdent, ident.encode())
	return w
}

// setVersion raises the version of a journal before it is published.
func (w *journalWriter) setVersion(version uint16) error {
	if err := w.flush(); err != nil {
		return err
	}
	_, err := w.f.WriteAt(journalHeader(version), 0)
	return err
}

// publish makes the journal durable under its name. It replaces the old one.
func (w *journalWriter) publish(fsys FS, dir string) error {
	name := path.Join(dir, JournalName)
	if err := w.commit(); err != nil {
		return err
	}
	if err := w.f.Close(); err != nil {
		return err
	}
	w.f = nil
	if err := fsys.Rename(name+tmpSuffix, name); err != nil {
		return err
	}
	if err := fsys.SyncDir(dir); err != nil {
		return err
	}
	f, err := fsys.OpenRW(name)
	w.f = f
	return err
}

// discard removes a journal that was not published.
func (w *journalWriter) discard(fsys FS, dir string) error {
	err := w.close()
	return errors.Join(err, fsys.Remove(path.Join(dir, JournalName+tmpSuffix)))
}

func (w *journalWriter) close() error {
	if w.f == nil {
		return nil
	}
	f := w.f
	w.f = nil
	return f.Close()
}
