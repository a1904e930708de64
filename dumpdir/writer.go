package dumpdir

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"strings"
	"sync"
	"time"

	"github.com/corehaul/corehaul/chunk"
	"github.com/corehaul/corehaul/vmcore/kdumpfile"
)

// Options of Create and Resume. The zero value is valid.
type Options struct {
	// Changed, if set, is called after every durable change of the manifest. It must not call the Writer. It owns its
	// manifest.
	Changed func(*Manifest)
	// Reopen lets Resume continue a dump that was sealed partial or log-only.
	Reopen bool
}

// Writer writes one dump. Methods may be called from several goroutines; writing ones are serialised. After a failed
// write or fsync the writer repeats that first error for ever, because the state of the bytes is unknown. Close it,
// and Resume from what is durable.
type Writer struct {
	c      *core
	closed bool // guarded by c.mu
}

// core is the state of the dump. One handle at a time owns it.
type core struct {
	fs   FS
	dir  string
	opts Options
	lock io.Closer

	// commitMu protects appends to the journal and replacements of named files. It is taken before mu. It may be held
	// during an fsync; mu never is.
	commitMu sync.Mutex
	j        *journalWriter // under commitMu
	finished bool           // Finish has made the dump complete; under commitMu

	mu      sync.Mutex
	owner   *Writer // nil after Close
	err     error   // the first failure, which every call repeats
	temps   int     // numbers the temporary log files
	sealing bool

	ident   identRecord
	log     *logRecord
	facts   *Facts
	plan    *PlanInfo
	seal    *sealRecord
	m       *Manifest // its counts are updated when it is saved
	builder *PlanBuilder

	vm      File // vmcore-incomplete; nil without a plan and after the seal
	kw      *kdumpfile.Writer
	descs   []kdumpfile.PageDesc // of the chunk that is put
	dataEnd int64
	started int64   // the disk was told to write page data up to here
	batch   *batch  // put, but not committed
	spare   *batch  // on its way to the journal, or empty; guarded by commitMu
	have    *seqSet // committed
	fresh   *seqSet // committed, and not yet returned by Commit
	count   counts  // committed
}

// Create creates the directory dir of a new dump, durably, and locks it. The error matches ErrExist if there is a
// dump, ErrLocked if another writer has it. It is a *DamageError if there is a dump that has lost its journal.
func Create(fsys FS, dir string, meta Meta, opts Options) (*Writer, error) {
	if !ValidID(meta.ID) || meta.Host != clean(meta.Host, maxHost) {
		return nil, fmt.Errorf("dump id %q of host %q: %w", meta.ID, meta.Host, fs.ErrInvalid)
	}
	if meta.StartTime.IsZero() {
		meta.StartTime = time.Now()
	}
	if err := fsys.MkdirAll(dir); err != nil {
		return nil, err
	}
	lock, err := fsys.Lock(dir)
	if err != nil {
		return nil, err
	}
	c := newCore(fsys, dir, opts, lock)
	if err := c.create(&meta); err != nil {
		return nil, errors.Join(err, c.release())
	}
	return c.newHandle(), nil
}

func newCore(fsys FS, dir string, opts Options, lock io.Closer) *core {
	return &core{
		fs: fsys, dir: dir, opts: opts, lock: lock, m: &Manifest{Version: ManifestVersion, State: StateArriving},
		batch: newBatch(), spare: newBatch(), have: newSeqSet(), fresh: newSeqSet(), count: newCounts(),
	}
}

// create writes the manifest first, because the journal makes the directory a dump.
func (c *core) create(meta *Meta) error {
	names, err := c.fs.ReadDir(c.dir)
	if err != nil {
		return err
	}
	for _, name := range names {
		if name == JournalName {
			return fmt.Errorf("%s: %w", c.dir, ErrExist)
		}
	}
	if err := c.lostJournal(names); err != nil {
		return err
	}
	if err := c.removeTemporary(names); err != nil {
		return err
	}
	c.ident = identRecord{id: meta.ID, host: meta.Host}
	c.m.setMeta(meta)
	if err := c.saveManifest(); err != nil {
		return err
	}
	if c.j, err = newJournal(c.fs, c.dir, c.ident, journalVersion1); err != nil {
		return err
	}
	return c.j.publish(c.fs, c.dir)
}

func (c *core) removeTemporary(names []string) error {
	for _, name := range names {
		if strings.HasSuffix(name, tmpSuffix) {
			// A side file's temporary file may have been renamed meanwhile.
			if err := ignoreNotExist(c.fs.Remove(c.path(name))); err != nil {
				return err
			}
		}
	}
	return nil
}

func (c *core) path(name string) string { return path.Join(c.dir, name) }

func (c *core) newHandle() *Writer {
	w := &Writer{c: c}
	c.owner = w
	return w
}

// check returns the error for every call on handle w. mu is held.
func (c *core) check(w *Writer) error {
	switch {
	case w.closed:
		return fmt.Errorf("%s: %w", c.dir, ErrClosed)
	case c.owner != w:
		return fmt.Errorf("%s: %w", c.dir, ErrRevoked)
	}
	return c.err
}

// enter begins a call that appends to the journal or replaces files. If it returns nil, commitMu is held and the
// caller releases it.
func (c *core) enter(w *Writer) error {
	c.commitMu.Lock()
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.check(w); err != nil {
		c.commitMu.Unlock()
		return err
	}
	return nil
}

// fail makes err the error of the writer, unless it has one.
func (c *core) fail(err error) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.failLocked(err)
}

func (c *core) failLocked(err error) error {
	if c.err == nil {
		c.err = fmt.Errorf("%s: writer failed: %w", c.dir, err)
	}
	return c.err
}

// Takeover gives the dump to a new handle at once, and commits the chunks of the old one if possible. From then on
// every call on the old handle returns ErrRevoked. If the old writer has failed, it is closed and the dump resumed.
// Takeover waits for a running Commit or Seal (cancel the Seal's context), but not for a StoreLog or plan that waits
// for its peer.
func (w *Writer) Takeover() (*Writer, error) {
	c := w.c
	c.commitMu.Lock()
	defer c.commitMu.Unlock()
	c.mu.Lock()
	if err := c.check(w); errors.Is(err, ErrClosed) || errors.Is(err, ErrRevoked) {
		c.mu.Unlock()
		return nil, err
	}
	c.owner = nil
	c.dropBuilder()
	failed := c.err != nil
	c.mu.Unlock()
	if !failed && c.commit() == nil {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.fresh = newSeqSet()
		return c.newHandle(), nil
	}
	lock, opts := c.lock, c.opts
	c.lock, opts.Reopen = nil, false
	_ = c.release() // the writer has failed already; Resume decides
	return resume(c.fs, c.dir, opts, lock)
}

// Close ends the writer and releases its lock without a seal: the dump can be resumed. Uncommitted chunks are lost. A
// second Close does nothing.
func (w *Writer) Close() error {
	c := w.c
	c.commitMu.Lock()
	defer c.commitMu.Unlock()
	c.mu.Lock()
	defer c.mu.Unlock()
	owner := c.owner == w
	w.closed = true
	if !owner {
		return nil
	}
	c.owner = nil
	c.dropBuilder()
	return c.release()
}

// Closed reports whether w was closed or another handle took over the dump.
func (w *Writer) Closed() bool {
	w.c.mu.Lock()
	defer w.c.mu.Unlock()
	return w.closed || w.c.owner != w
}

// release closes the open files and the lock.
func (c *core) release() error {
	var errs []error
	if c.vm != nil {
		errs = append(errs, c.vm.Close())
		c.vm = nil
	}
	if c.j != nil {
		errs = append(errs, c.j.close())
		c.j = nil
	}
	if c.lock != nil {
		errs = append(errs, c.lock.Close())
		c.lock = nil
	}
	return errors.Join(errs...)
}

// Dir returns the directory of the dump.
func (w *Writer) Dir() string { return w.c.dir }

// Plan returns the stored plan; ok is false if there is none.
func (w *Writer) Plan() (info PlanInfo, ok bool) {
	w.c.mu.Lock()
	defer w.c.mu.Unlock()
	if w.c.plan == nil {
		return PlanInfo{}, false
	}
	return *w.c.plan, true
}

// Have returns the durable chunks, ascending.
func (w *Writer) Have() []chunk.SeqRange {
	w.c.mu.Lock()
	defer w.c.mu.Unlock()
	return w.c.have.ranges()
}

// Progress counts the contents of a dump.
type Progress struct {
	Planned  uint64 `json:"planned"`   // pages of the plan
	Present  uint64 `json:"present"`   // durable pages, including zero pages
	Zero     uint64 `json:"zero"`      // zero pages among them
	Chunks   uint64 `json:"chunks"`    // durable chunks
	Bytes    int64  `json:"bytes"`     // length of vmcore
	PageData int64  `json:"page_data"` // stored bytes of pages
}

// Missing returns the number of planned pages that are not present.
func (p Progress) Missing() uint64 { return p.Planned - min(p.Planned, p.Present) }

// Progress returns the durable counts.
func (w *Writer) Progress() Progress {
	w.c.mu.Lock()
	defer w.c.mu.Unlock()
	return w.c.progress()
}

func (c *core) progress() Progress {
	p := Progress{Present: c.count.pages, Zero: c.count.zero, Chunks: c.count.chunks, PageData: c.count.bytes}
	if c.plan != nil {
		p.Planned, p.Bytes = c.plan.Pages, c.dataEnd
	}
	return p
}
