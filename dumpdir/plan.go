package dumpdir

import (
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/corehaul/corehaul/mem"
	"github.com/corehaul/corehaul/vmcore"
)

// PlanHash is the sender's hash of a plan, as defined by the protocol. It is compared and never interpreted. Journals
// before version 3 have only its first half; the other half is zero.
type PlanHash [16]byte

// Whole reports whether both halves are known.
func (h PlanHash) Whole() bool { return [8]byte(h[8:]) != [8]byte{} }

// PlanEnd is the totals of a plan, which the sender sends after all runs.
type PlanEnd struct {
	Hash   PlanHash
	Chunks uint64 // number of chunks
	Pages  uint64 // pages in all runs
	// Classes counts the machine's pages by kind (kernel, free, user...). For the manifest only.
	Classes map[string]uint64
	// Sparse says that most of the pages will not come. Then the descriptors are not allocated, and those of missing
	// pages stay a hole. It is not stored.
	Sparse bool
}

// PlanInfo is a stored plan.
type PlanInfo struct {
	PlanEnd
	PageSize  int
	MaxPFN    mem.PFN
	DumpLevel uint8
	Runs      uint64 // merged runs
	// DataOffset is the offset of page data in vmcore, in bytes. The shared zero page comes first.
	DataOffset int64
}

// Is reports whether p is the plan that ends with end: hash and counts are equal. If a hash is not whole, the first
// halves are compared. That distinguishes the few plans of one crash. A sender that makes two of its plans collide
// spoils only its own dump.
func (p *PlanInfo) Is(end *PlanEnd) bool {
	same := p.Hash == end.Hash
	if !p.Hash.Whole() || !end.Hash.Whole() {
		same = [8]byte(p.Hash[:8]) == [8]byte(end.Hash[:8])
	}
	return same && p.Chunks == end.Chunks && p.Pages == end.Pages
}

// firstPage is the lowest offset of page data, behind the shared zero page.
func (p *PlanInfo) firstPage() int64 { return p.DataOffset + int64(p.PageSize) }

// maxDataSlack is the largest gap between descriptors and page data that a journal may have.
const maxDataSlack = 1 << 20

// check checks that the counts of a plan fit each other. A plan never has more chunks than pages.
func (p *PlanInfo) check() error {
	if p.Chunks > p.Pages || p.Pages > uint64(p.MaxPFN) {
		return fmt.Errorf("%w: %d chunks of %d pages, max_mapnr %d", ErrBadPlan, p.Chunks, p.Pages, p.MaxPFN)
	}
	return nil
}

// PlanBuilder takes the runs of a plan in constant memory. It writes a new journal beside the old one, which it
// replaces when the plan is complete. One goroutine uses it.
type PlanBuilder struct {
	w     *Writer
	facts Facts
	runs  runEncoder
	ram   ramCursor
	j     *journalWriter
	other bool  // the plan is not w's: MoveTo says whose it is
	err   error // what ended the builder
}

var errPlanDone = errors.New("the plan was finished or given up")

// StartPlan begins to store the plan. The runs go to the builder; Finish stores the plan. An unfinished plan of an
// earlier StartPlan is dropped. The error matches ErrHavePlan, ErrSealed or ErrBadPlan.
func (w *Writer) StartPlan(f Facts) (*PlanBuilder, error) {
	c := w.c
	if err := c.enter(w); err != nil {
		return nil, err
	}
	defer c.commitMu.Unlock()
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.seal != nil || c.sealing:
		return nil, ErrSealed
	case c.plan != nil:
		return nil, ErrHavePlan
	}
	if err := f.checkAll(); err != nil {
		return nil, err
	}
	c.dropBuilder()
	b := newPlanBuilder(w, &f)
	if err := b.begin(newJournal(c.fs, c.dir, c.ident, f.journalVersion())); err != nil {
		return nil, c.failLocked(err)
	}
	c.builder = b
	return b, nil
}

// StartOtherPlan begins to store a plan of the same crash that may differ from w's. The runs go to a file without a
// name until MoveTo gives them to the writer of another dump. Nothing of this affects w, not even a full disk. The
// error matches ErrBadPlan, or comes from the file system.
func (w *Writer) StartOtherPlan(f Facts) (*PlanBuilder, error) {
	c := w.c
	if err := c.enter(w); err != nil {
		return nil, err
	}
	defer c.commitMu.Unlock()
	if err := f.checkAll(); err != nil {
		return nil, err
	}
	b := newPlanBuilder(w, &f)
	b.other = true
	name := c.path("otherplan" + tmpSuffix)
	file, err := c.fs.Create(name)
	if err != nil {
		return nil, err
	}
	err = c.fs.Remove(name)
	if err == nil {
		err = b.begin(beginJournal(file, c.ident, f.journalVersion()), nil)
	}
	if err != nil {
		return nil, errors.Join(err, file.Close())
	}
	return b, nil
}

// newPlanBuilder returns a builder without a file. It copies the notes and RAM ranges of f.
func newPlanBuilder(w *Writer, f *Facts) *PlanBuilder {
	f.Notes, f.RAM = slices.Clone(f.Notes), slices.Clone(f.RAM)
	erased, _ := vmcore.FindERASEINFO(f.Notes, f.order())
	f.eraseinfo = len(erased) > 0
	return &PlanBuilder{w: w, facts: *f, runs: runEncoder{limit: f.MaxPFN}, ram: newRAMCursor(f)}
}

// begin writes the records before the runs to a new journal.
func (b *PlanBuilder) begin(j *journalWriter, err error) error {
	if err != nil {
		return err
	}
	b.j = j
	b.j.add(recFacts, encodeFacts(&b.facts))
	if err := b.j.addPieces(recNotes, b.facts.Notes); err != nil {
		return err
	}
	ram := make([]byte, 0, len(b.facts.RAM)*16)
	for _, r := range b.facts.RAM {
		ram = le.AppendUint64(ram, uint64(r.Start))
		ram = le.AppendUint64(ram, uint64(r.End))
	}
	if err := b.j.addPieces(recRAM, ram); err != nil {
		return err
	}
	return b.j.flush()
}

// MoveTo gives the plan of StartOtherPlan to w, which has no plan. Finish makes it durable there. The error is that
// of an earlier call, or as of StartPlan.
func (b *PlanBuilder) MoveTo(w *Writer) error {
	if b.err != nil {
		return b.err
	}
	to, err := w.StartPlan(b.facts)
	if err != nil {
		return err
	}
	// Both journals are equal up to the runs: crash and host are the same.
	runs := io.NewSectionReader(b.j.f, to.j.size, b.j.size-to.j.size)
	if _, err := io.Copy(io.NewOffsetWriter(to.j.f, to.j.size), runs); err != nil {
		return w.c.fail(err)
	}
	to.j.size, to.runs, to.ram = b.j.size, b.runs, b.ram
	b.Abort()
	w.c.mu.Lock()
	defer w.c.mu.Unlock()
	*b, w.c.builder = *to, b
	return nil
}

// Add appends a run of pages. Runs ascend, are disjoint and lie in RAM. They may touch. The error matches ErrBadPlan.
func (b *PlanBuilder) Add(e mem.Extent) error {
	c := b.w.c
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := b.check(); err != nil {
		return err
	}
	if b.err = b.runs.add(e); b.err == nil && !b.ram.holds(e) {
		b.err = fmt.Errorf("%w: %v is not RAM", ErrBadPlan, e)
	}
	if b.err != nil {
		return b.err
	}
	if len(b.runs.buf) < pieceLen-32 {
		return nil
	}
	return b.flush()
}

// check returns the error that stops the builder. The core's mu is held.
func (b *PlanBuilder) check() error {
	if err := b.w.c.check(b.w); err != nil {
		return err
	}
	return b.err
}

// flush writes the encoded runs.
func (b *PlanBuilder) flush() error {
	b.j.add(recRuns, b.runs.buf)
	b.runs.buf = b.runs.buf[:0]
	if b.err = b.j.flush(); b.err != nil && !b.other {
		return b.w.c.failLocked(b.err)
	}
	return b.err
}

// Finish checks the runs against end, makes the plan durable and lays out vmcore-incomplete, which crash can open
// from then on. The error matches ErrBadPlan if the counts are wrong; then the plan is dropped. It matches
// ErrHavePlan for a plan of StartOtherPlan without MoveTo.
func (b *PlanBuilder) Finish(end PlanEnd) error {
	c := b.w.c
	if b.other {
		return ErrHavePlan
	}
	if err := c.enter(b.w); err != nil {
		return err
	}
	defer c.commitMu.Unlock()
	info, err := b.end(end)
	if err != nil {
		b.Abort()
		return err
	}
	if err := b.publish(info); err != nil {
		return c.fail(err)
	}
	if err := c.layOut(); err != nil {
		return c.fail(err)
	}
	c.mu.Lock()
	c.m.setPlan(&b.facts, info)
	c.m.Plan.Classes = cleanClasses(end.Classes)
	c.mu.Unlock()
	return c.saveManifest()
}

// end writes the remaining runs and returns the plan to be stored.
func (b *PlanBuilder) end(end PlanEnd) (*PlanInfo, error) {
	c := b.w.c
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := b.check(); err != nil {
		return nil, err
	}
	b.runs.flush()
	if len(b.runs.buf) > 0 {
		if err := b.flush(); err != nil {
			return nil, err
		}
	}
	f := &b.facts
	info := &PlanInfo{PlanEnd: end, PageSize: f.PageSize, MaxPFN: f.MaxPFN, DumpLevel: f.DumpLevel, Runs: b.runs.runs}
	if b.runs.pages != end.Pages {
		return nil, fmt.Errorf("%w: %d pages announced, %d in its runs", ErrBadPlan, end.Pages, b.runs.pages)
	}
	if err := info.check(); err != nil {
		return nil, err
	}
	layout, err := f.header().Layout(end.Pages)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrBadPlan, err)
	}
	info.DataOffset = layout.Data
	return info, nil
}

// publish replaces the old journal by the new one. commitMu is held.
func (b *PlanBuilder) publish(info *PlanInfo) error {
	c := b.w.c
	if info.Hash.Whole() {
		if err := b.j.setVersion(journalVersion3); err != nil {
			return err
		}
	}
	b.j.add(recPlanEnd, encodePlanEnd(info))
	if c.log != nil {
		b.j.add(recLog, c.log.encode())
	}
	if err := b.j.publish(c.fs, c.dir); err != nil {
		return err
	}
	old := c.j
	c.mu.Lock()
	defer c.mu.Unlock()
	c.j, c.plan, c.facts, c.dataEnd = b.j, info, &b.facts, info.firstPage()
	c.builder, b.err = nil, errPlanDone
	return old.close()
}

// loadOwn loads the journal that the writer has open.
func (c *core) loadOwn() (*journal, error) { return loadJournal(c.j.f, c.j.size, nil) }

// cleanClasses bounds the peer's counts of pages.
func cleanClasses(classes map[string]uint64) map[string]uint64 {
	out := make(map[string]uint64)
	for name, n := range classes {
		if len(out) < maxMapEntries {
			out[clean(name, maxHost)] = n
		}
	}
	return out
}

// Abort drops the plan. After Finish it does nothing.
func (b *PlanBuilder) Abort() {
	c := b.w.c
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.builder == b:
		c.dropBuilder()
	case b.other:
		_ = b.j.close() // its file has no name
		b.err = errPlanDone
	}
}

// dropBuilder drops an unfinished plan. If its file cannot be removed now, the next Resume removes it.
func (c *core) dropBuilder() {
	if b := c.builder; b != nil {
		_ = b.j.discard(c.fs, c.dir) // a leftover is harmless
		c.builder, b.err = nil, errPlanDone
	}
}
