package dumpdir

import (
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"path"
	"slices"
	"syscall"
)

// tailChecked is how many bytes of page data before the end every Resume compares with the journal. The order of
// syncs makes them right, unless a disk ignores a sync.
const tailChecked = 16 << 20

// recoverJournal opens the journal and prepares it for appending: it cuts off the torn tail and leaves out chunks
// whose data does not match their record.
func (c *core) recoverJournal(names []string) (*journal, error) {
	f, err := c.fs.OpenRW(c.path(JournalName))
	if err != nil {
		return nil, err
	}
	c.j = &journalWriter{f: f}
	if c.j.size, err = f.Size(); err != nil {
		return nil, err
	}
	c.j.reserved = c.j.size // giveBack also releases what the last writer allocated
	jr, err := c.loadOwn()
	if err := c.keepSealed(names, jr, err); err != nil {
		return nil, err
	}
	if jr.seal != nil && (!c.opts.Reopen || jr.seal.state == StateComplete) {
		return jr, nil // the verifier reports damage of a sealed dump
	}
	lost, err := c.lostChunks(jr, names)
	if err != nil {
		return nil, err
	}
	if len(lost) > 0 || len(jr.broken) > 1 || len(jr.broken) == 1 && jr.broken[0].end != jr.size {
		return c.rewriteJournal(jr, lost)
	}
	if jr.end == jr.size {
		return jr, nil
	}
	c.j.size, jr.size, jr.broken = jr.end, jr.end, nil
	if err := f.Truncate(jr.end); err != nil {
		return nil, err
	}
	return jr, f.Sync()
}

// lostChunks returns the numbers of the chunks whose data is missing. It checks the lengths of all chunks. It
// compares the bytes of chunks at the end, and of those behind a broken record, which may never have been committed.
func (c *core) lostChunks(jr *journal, names []string) (map[uint64]bool, error) {
	if jr.plan == nil || jr.count.chunks == 0 {
		return nil, nil
	}
	name := IncompleteName
	if !slices.Contains(names, name) {
		name = VMCoreName
	}
	vm, err := c.fs.Open(c.path(name))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, &DamageError{File: IncompleteName, Offset: -1, Text: fmt.Sprintf("missing, with %d chunks in the journal", jr.count.chunks)}
	}
	if err != nil {
		return nil, err
	}
	lost, err := lostIn(vm, jr)
	return lost, errors.Join(err, vm.Close())
}

func lostIn(vm File, jr *journal) (map[uint64]bool, error) {
	size, err := vm.Size()
	if err != nil {
		return nil, err
	}
	firstBroken := jr.size
	if len(jr.broken) > 0 {
		firstBroken = jr.broken[0].off
	}
	lost := make(map[uint64]bool)
	var buf []byte
	_, err = loadJournal(jr.r, jr.size, func(r *chunkRecord, at int64) error {
		if r.end() > size {
			lost[r.seq] = true
			return nil
		}
		if r.end() <= jr.dataEnd-tailChecked && at < firstBroken {
			return nil
		}
		ok, err := dataIntact(vm, r, &buf)
		if err == nil && !ok {
			lost[r.seq] = true
		}
		return err
	})
	return lost, err
}

// dataIntact compares a chunk's stored bytes with its record.
func dataIntact(vm File, r *chunkRecord, buf *[]byte) (bool, error) {
	if int64(cap(*buf)) < r.bytes {
		*buf = make([]byte, r.bytes)
	}
	data := (*buf)[:r.bytes]
	if n, err := vm.ReadAt(data, r.offset); n < len(data) {
		return false, err
	}
	for i, p := range r.pages {
		if crc32.Checksum(data[:p.Size], castagnoli) != r.sums[i] {
			return false, nil
		}
		data = data[p.Size:]
	}
	return true, nil
}

// rewriteJournal replaces the journal by one with all intact records except those of lost chunks.
func (c *core) rewriteJournal(jr *journal, lost map[uint64]bool) (*journal, error) {
	w, err := newJournal(c.fs, c.dir, jr.ident, jr.version)
	if err != nil {
		return nil, err
	}
	var chunk chunkRecord
	err = jr.records(newScanner(jr.r, jr.size), journalHeaderLen, func(rec *record) (bool, error) {
		if rec.typ == recIdent {
			return true, nil
		}
		if rec.typ == recChunk {
			if err := chunk.decode(rec.payload, jr.plan); err != nil {
				return false, journalDamage(rec.off, "%v", err)
			}
			if lost[chunk.seq] {
				return true, nil
			}
		}
		w.add(rec.typ, rec.payload)
		return true, w.flush()
	})
	if err != nil {
		return nil, errors.Join(err, w.discard(c.fs, c.dir))
	}
	if err := w.publish(c.fs, c.dir); err != nil {
		return nil, errors.Join(err, w.close())
	}
	old := c.j
	c.j = w
	if err := old.close(); err != nil {
		return nil, err
	}
	return c.loadOwn()
}

// syncRecovered makes the recovered data durable. If the last writer was killed, or its sync failed, the data may be
// only in the page cache, and a power cut would lose chunks that Resume reports as stored. After a failed sync, Linux
// marks the pages clean, so a new sync is not enough: the end of the journal, maxBatch bytes, is written again.
func (c *core) syncRecovered() error {
	size := c.j.size
	tail := make([]byte, min(size, maxBatch))
	if n, err := c.j.f.ReadAt(tail, size-int64(len(tail))); n < len(tail) {
		return err
	}
	if _, err := c.j.f.WriteAt(tail, size-int64(len(tail))); err != nil && !errors.Is(err, syscall.ENOSPC) {
		return err // on a full copy-on-write file system, the present bytes have to do
	}
	if err := c.j.f.Sync(); err != nil {
		return err
	}
	return errors.Join(c.fs.SyncDir(c.dir), c.fs.SyncDir(path.Dir(c.dir)))
}
