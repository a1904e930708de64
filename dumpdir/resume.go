package dumpdir

import (
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"slices"

	"github.com/corehaul/corehaul/vmcore/kdumpfile"
)

// tailChecked is how many bytes of page data before the end are compared with the journal on
// every Resume. By the order of syncs they are right; a disk that lies about a sync is
// found out here.
const tailChecked = 16 << 20

// Resume takes up an unsealed dump where its journal ends. What the last writer did not
// commit is cut off; the front of vmcore is written again. A sealed dump whose seal was
// interrupted is finished and can be asked for its Result; it takes no chunks unless
// opts.Reopen is set. Errors match ErrNotExist, ErrLocked, ErrUnsupported or are a *DamageError.
func Resume(fsys FS, dir string, opts Options) (*Writer, error) {
	lock, err := fsys.Lock(dir)
	if err != nil {
		return nil, notExist(dir, err)
	}
	return resume(fsys, dir, opts, lock)
}

// notExist turns a missing directory or journal into a missing dump.
func notExist(dir string, err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%s: %w", dir, ErrNotExist)
	}
	return err
}

// resume is Resume with the lock taken. It owns the lock.
func resume(fsys FS, dir string, opts Options, lock io.Closer) (*Writer, error) {
	c := newCore(fsys, dir, opts, lock)
	if err := c.resume(); err != nil {
		return nil, errors.Join(err, c.release())
	}
	return c.newHandle(), nil
}

func (c *core) resume() error {
	names, err := c.fs.ReadDir(c.dir)
	if err != nil {
		return err
	}
	if !slices.Contains(names, JournalName) {
		return fmt.Errorf("%s: %w", c.dir, ErrNotExist)
	}
	jr, err := c.recoverJournal(names)
	if err != nil {
		return err
	}
	if err := c.removeTemporary(names); err != nil {
		return err
	}
	c.adopt(jr)
	good := c.loadManifest(slices.Contains(names, ManifestName))
	if c.seal != nil && (c.seal.state == StateComplete || !c.opts.Reopen) {
		return c.resumeSealed(names)
	}
	if c.seal != nil {
		if err := c.reopen(names); err != nil {
			return err
		}
		jr.seal = nil
	}
	if err := c.adoptLog(slices.Contains(names, LogName)); err != nil {
		return err
	}
	if c.plan != nil {
		if err := c.resumeVMCore(jr, names); err != nil {
			return err
		}
	}
	if good {
		return nil // it needs no room, then, on a disk that may be full
	}
	return c.saveManifest()
}

// adopt takes over what the journal says.
func (c *core) adopt(jr *journal) {
	c.ident, c.log, c.facts, c.plan, c.seal = jr.ident, jr.log, jr.facts, jr.plan, jr.seal
	c.have, c.count, c.dataEnd = jr.have, jr.count, jr.dataEnd
}

// recoverJournal opens the journal and brings it into a state that can be appended to: the torn
// tail is cut off, and chunks whose data is not what their record says are left out.
func (c *core) recoverJournal(names []string) (*journal, error) {
	f, err := c.fs.OpenRW(c.path(JournalName))
	if err != nil {
		return nil, err
	}
	c.j = &journalWriter{f: f}
	if c.j.size, err = f.Size(); err != nil {
		return nil, err
	}
	c.j.reserved = c.j.size // what the last writer set aside is there to be given back
	jr, err := c.loadOwn()
	if err != nil {
		return nil, err
	}
	if jr.seal != nil && !c.opts.Reopen {
		return jr, nil // damage in a sealed dump is the verifier's to name, not ours to hide
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

// lostChunks returns the numbers of the chunks whose data is not there. Lengths are checked for all;
// bytes for those at the end, and for those behind a broken record, which may never have been committed.
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

// rewriteJournal puts a journal in the old one's place that has all its intact records except
// the lost chunks'.
func (c *core) rewriteJournal(jr *journal, lost map[uint64]bool) (*journal, error) {
	w, err := newJournal(c.fs, c.dir, jr.ident)
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

// loadManifest reads the manifest; one that is missing or damaged is made again from the journal. good tells
// that the one on disk can stay for now: only its counts may be old.
func (c *core) loadManifest(there bool) (good bool) {
	if there {
		if m, err := readManifest(c.fs, c.path(ManifestName)); err == nil && m.ID == c.ident.id && m.Host == c.ident.host {
			c.m = m
			if c.plan != nil && m.Plan == nil { // cut off between plan and manifest
				m.setPlan(c.facts, c.plan)
				return false
			}
			return m.State == StateArriving
		}
	}
	c.m = manifestOf(&journal{ident: c.ident, facts: c.facts, plan: c.plan})
	return false
}

// manifestOf makes a manifest from what the journal knows.
func manifestOf(j *journal) *Manifest {
	m := &Manifest{Version: ManifestVersion}
	meta := Meta{ID: j.ident.id, Host: j.ident.host}
	if f := j.facts; f != nil {
		meta.Release, meta.Nodename, meta.Machine = f.Utsname.Release, f.Utsname.Nodename, f.Utsname.Machine
		meta.CrashTime = f.Time
	}
	m.setMeta(&meta)
	if m.CrashTime != nil {
		m.StartTime = *m.CrashTime
	}
	if j.plan != nil {
		m.setPlan(j.facts, j.plan)
	}
	return m
}

func readManifest(fsys FS, name string) (*Manifest, error) {
	f, err := fsys.Open(name)
	if err != nil {
		return nil, err
	}
	m, err := ParseManifest(io.NewSectionReader(f, 0, maxManifestLen+1))
	return m, errors.Join(err, f.Close())
}

// resumeSealed finishes a seal that was interrupted. SHA256SUMS is the last that a seal writes and
// the first that a reopening removes.
func (c *core) resumeSealed(names []string) error {
	c.sealing = true
	if slices.Contains(names, SumsName) && !slices.Contains(names, IncompleteName) {
		return nil
	}
	return c.finishSeal()
}

// reopen takes back a partial or log-only seal.
func (c *core) reopen(names []string) error {
	if slices.Contains(names, SumsName) {
		if err := c.fs.Remove(c.path(SumsName)); err != nil {
			return err
		}
		if err := c.fs.SyncDir(c.dir); err != nil {
			return err
		}
	}
	c.j.add(recReopen, nil)
	if err := c.j.commit(); err != nil {
		return err
	}
	c.seal = nil
	return nil
}

// adoptLog notes a log that got its name but not its record.
func (c *core) adoptLog(there bool) error {
	if !there {
		c.log = nil
		return nil
	}
	size, sum, err := hashFile(c.fs, c.path(LogName), nil)
	if err != nil {
		return err
	}
	rec := logRecord{size: size, sum: sum}
	if c.log != nil && *c.log == rec {
		return nil
	}
	c.j.add(recLog, rec.encode())
	c.log = &rec
	return c.j.commit()
}

// resumeVMCore brings vmcore-incomplete to where the journal is: the right name, nothing behind
// the last chunk, zeros between chunks, and a new front.
func (c *core) resumeVMCore(jr *journal, names []string) error {
	if !slices.Contains(names, IncompleteName) {
		if !slices.Contains(names, VMCoreName) {
			return c.layOut()
		}
		if err := c.fs.Rename(c.path(VMCoreName), c.path(IncompleteName)); err != nil {
			return err
		}
	}
	vm, err := c.fs.OpenRW(c.path(IncompleteName))
	if err != nil {
		return err
	}
	c.vm = vm
	if err := vm.Truncate(c.dataEnd); err != nil {
		return err
	}
	if c.kw, err = rebuildFront(vm, jr); err != nil {
		return err
	}
	if err := reserve(vm, c.kw.Layout()); err != nil {
		return err
	}
	return c.fs.SyncDir(c.dir)
}

// rebuildFront writes the front of vm again from the journal, marked incomplete. Page data stays.
func rebuildFront(vm File, jr *journal) (*kdumpfile.Writer, error) {
	var runsErr error
	front := &zeroSaver{File: vm}
	kw, err := kdumpfile.CreateAt(front, jr.facts.header(), jr.runs(&runsErr), kdumpfile.Options{DataOffset: jr.plan.DataOffset, KeepData: true})
	if err := errors.Join(runsErr, err); err != nil {
		return nil, err
	}
	end := jr.plan.firstPage()
	err = jr.chunks(func(r *chunkRecord) error {
		if r.offset > end {
			if err := zeroRange(vm, end, r.offset); err != nil {
				return err
			}
		}
		end = r.end()
		err := putDescs(kw, r.extents, r.pages, r.offset)
		if errors.Is(err, kdumpfile.ErrNotPlanned) || errors.Is(err, kdumpfile.ErrAlreadyPresent) {
			return &DamageError{File: JournalName, Offset: -1, Text: fmt.Sprintf("chunk %d: %v", r.seq, err)}
		}
		return err
	})
	return kw, err
}

// zeroSaver leaves out writes of zeros where there are zeros: bitmaps of a machine with few pages at high
// addresses are holes, and stay holes.
type zeroSaver struct {
	File
	buf []byte
}

func (z *zeroSaver) WriteAt(p []byte, off int64) (int, error) {
	if isZero(p) {
		if len(z.buf) < len(p) {
			z.buf = make([]byte, len(p))
		}
		if n, err := z.ReadAt(z.buf[:len(p)], off); err == nil && n == len(p) && isZero(z.buf[:n]) {
			return n, nil
		}
	}
	return z.File.WriteAt(p, off)
}

func isZero(p []byte) bool {
	for len(p) >= 8 {
		if le.Uint64(p) != 0 {
			return false
		}
		p = p[8:]
	}
	for _, b := range p {
		if b != 0 {
			return false
		}
	}
	return true
}

func zeroRange(w io.WriterAt, from, to int64) error {
	zero := make([]byte, 64<<10)
	for from < to {
		n := min(int64(len(zero)), to-from)
		if _, err := w.WriteAt(zero[:n], from); err != nil {
			return err
		}
		from += n
	}
	return nil
}

const maxSumsLen = 64 << 10

// readSmall reads a file of at most limit bytes.
func readSmall(fsys FS, name string, limit int64) ([]byte, error) {
	f, err := fsys.Open(name)
	if err != nil {
		return nil, err
	}
	b, err := io.ReadAll(io.NewSectionReader(f, 0, limit+1))
	if err == nil && int64(len(b)) > limit {
		err = &DamageError{File: name, Offset: -1, Text: fmt.Sprintf("more than %d bytes", limit)}
	}
	return b, errors.Join(err, f.Close())
}
