package dumpdir

import (
	"errors"
	"fmt"
	"slices"

	"github.com/corehaul/corehaul/mem"
	"github.com/corehaul/corehaul/vmcore"
)

// PlanEnd is what a sender says of its plan once all runs are through.
type PlanEnd struct {
	Hash   uint64 // the sender's hash of the plan, as the protocol defines it; compared, never interpreted
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
	f.Notes, f.RAM = slices.Clone(f.Notes), slices.Clone(f.RAM)
	erased, _ := vmcore.FindERASEINFO(f.Notes, f.order())
	f.eraseinfo = len(erased) > 0
	c.dropBuilder()
	b := &PlanBuilder{w: w, facts: f, runs: runEncoder{limit: f.MaxPFN}, ram: newRAMCursor(&f)}
	if err := b.begin(); err != nil {
		return nil, c.failLocked(err)
	}
	c.builder = b
	return b, nil
}

func (b *PlanBuilder) begin() (err error) {
	c := b.w.c
	if b.j, err = newJournal(c.fs, c.dir, c.ident, b.facts.journalVersion()); err != nil {
		return err
	}
	b.j.add(recFacts, encodeFacts(&b.facts))
	if err := b.j.addPieces(recNotes, b.facts.Notes); err != nil {
		return err
	}
	ram := make([]byte, 0, len(b.facts.RAM)*16)
	for _, r := range b.facts.RAM {
		ram = le.AppendUint64(ram, uint64(r.Start))
		ram = le.AppendUint64(ram, uint64(r.End))
	}
	return b.j.addPieces(recRAM, ram)
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
	if err := b.runs.add(e); err != nil {
		return err
	}
	if !b.ram.holds(e) {
		b.err = fmt.Errorf("%w: %v is not RAM", ErrBadPlan, e)
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
	if err := b.j.flush(); err != nil {
		return b.w.c.failLocked(err)
	}
	return nil
}

// Finish checks the runs against end, makes the plan durable and lays out
// vmcore-incomplete, which crash can open from then on. The error matches ErrBadPlan when
// the counts are wrong; the plan is given up then.
func (b *PlanBuilder) Finish(end PlanEnd) error {
	c := b.w.c
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
	if c.builder == b {
		c.dropBuilder()
	}
}

// dropBuilder gives up a plan that is not whole. What it wrote goes with the next Resume, if not now.
func (c *core) dropBuilder() {
	if b := c.builder; b != nil {
		_ = b.j.discard(c.fs, c.dir) // a leftover harms nothing
		c.builder, b.err = nil, errPlanDone
	}
}
