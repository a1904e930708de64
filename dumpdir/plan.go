package dumpdir

import (
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/corehaul/corehaul/mem"
	"github.com/corehaul/corehaul/vmcore"
)

// PlanHash is the sender's hash of a plan, as the protocol defines it; compared, never interpreted. Journals before
// version 3 hold its first half only; the other one is zero then.
type PlanHash [16]byte

// Whole reports whether both halves are known.
func (h PlanHash) Whole() bool { return [8]byte(h[8:]) != [8]byte{} }

// PlanEnd is what a sender says of its plan once all runs are through.
type PlanEnd struct {
	Hash   PlanHash
	Chunks uint64 // chunk numbers are below this
	Pages  uint64 // pages in all runs together
	// Classes counts the machine's pages by kind (kernel, free, user...). For the manifest only.
	Classes map[string]uint64
	// Sparse is set when most of the pages are known not to come. Then the room of descriptors is not set aside, and those of
	// pages that do not come stay a hole. It is not stored.
	Sparse bool
}

// PlanInfo is a stored plan.
type PlanInfo struct {
	PlanEnd
	PageSize  int
	MaxPFN    mem.PFN
	DumpLevel uint8
	Runs      uint64 // merged runs
	// DataOffset is where page data begins in vmcore, in bytes; the shared zero page comes first.
	DataOffset int64
}

// Is reports whether p is the plan that ends with end: hash and counts are the same. Where one hash is not whole, the first
// halves are compared. That is enough to tell the few plans of one crash apart, and whoever makes two that collide
// spoils no dump but its own.
func (p *PlanInfo) Is(end *PlanEnd) bool {
	same := p.Hash == end.Hash
	if !p.Hash.Whole() || !end.Hash.Whole() {
		same = [8]byte(p.Hash[:8]) == [8]byte(end.Hash[:8])
	}
	return same && p.Chunks == end.Chunks && p.Pages == end.Pages
}

// firstPage is the lowest offset of page data behind the shared zero page.
func (p *PlanInfo) firstPage() int64 { return p.DataOffset + int64(p.PageSize) }

// maxDataSlack is how far behind the descriptors a journal may place the page data.
const maxDataSlack = 1 << 20

// check tells whether the counts of a plan fit each other. There are never more chunks than pages.
func (p *PlanInfo) check() error {
	if p.Chunks > p.Pages || p.Pages > uint64(p.MaxPFN) {
		return fmt.Errorf("%w: %d chunks of %d pages, max_mapnr %d", ErrBadPlan, p.Chunks, p.Pages, p.MaxPFN)
	}
	return nil
}

// PlanBuilder takes the runs of a plan, in constant memory: it writes a new journal
// beside the old one, which takes its place when the plan is whole. One goroutine uses it.
type PlanBuilder struct {
	w     *Writer
	facts Facts
	runs  runEncoder
	ram   ramCursor
	j     *journalWriter
	other bool  // the plan is not w's: MoveTo tells whose
	err   error // what ended the builder
}

var errPlanDone = errors.New("the plan was finished or given up")

// StartPlan begins to store the plan. The runs go to the builder; the plan counts from
// the return of its Finish on. A plan that was begun before and not finished is given up. The
// error matches ErrHavePlan, ErrSealed or ErrBadPlan.
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

// StartOtherPlan begins to store a plan of the same crash that may be another one than w has. The runs lie in a file
// without a name until MoveTo gives them to the writer of another dump. Nothing of it changes or ends w, a full disk included.
// The error matches ErrBadPlan, or is the file system's.
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

// newPlanBuilder returns a builder without a file. The notes and RAM ranges of f become its own.
func newPlanBuilder(w *Writer, f *Facts) *PlanBuilder {
	f.Notes, f.RAM = slices.Clone(f.Notes), slices.Clone(f.RAM)
	erased, _ := vmcore.FindERASEINFO(f.Notes, f.order())
	f.eraseinfo = len(erased) > 0
	return &PlanBuilder{w: w, facts: *f, runs: runEncoder{limit: f.MaxPFN}, ram: newRAMCursor(f)}
}

// begin writes to a new journal what comes before the runs.
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

// MoveTo gives the plan of StartOtherPlan to w, which has none. Finish makes it durable there. The error is that of an
// earlier call, or as of StartPlan.
func (b *PlanBuilder) MoveTo(w *Writer) error {
	if b.err != nil {
		return b.err
	}
	to, err := w.StartPlan(b.facts)
	if err != nil {
		return err
	}
	// Up to the runs, both journals are the same: one crash, one host.
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

// Add appends a run of pages that will be sent. Runs ascend, are disjoint and lie in RAM; they may
// touch. The error matches ErrBadPlan.
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

// check returns why the builder takes nothing. The core's mu is held.
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

// Finish checks the runs against end, makes the plan durable and lays out
// vmcore-incomplete, which crash can open from then on. The error matches ErrBadPlan when
// the counts are wrong; the plan is given up then. It matches ErrHavePlan for a plan of StartOtherPlan that was not moved.
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

// end writes what is left of the runs and returns the plan as it will be stored.
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

// publish puts the new journal in the place of the old one. commitMu is held.
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

// loadOwn reads the journal that the writer has open.
func (c *core) loadOwn() (*journal, error) { return loadJournal(c.j.f, c.j.size, nil) }

// cleanClasses bounds what a peer says of its pages.
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
		_ = b.j.close() // the last of it
		b.err = errPlanDone
	}
}

// dropBuilder gives up a plan that is not whole. What it wrote goes with the next Resume, if not now.
func (c *core) dropBuilder() {
	if b := c.builder; b != nil {
		_ = b.j.discard(c.fs, c.dir) // a leftover harms nothing
		c.builder, b.err = nil, errPlanDone
	}
}
