package dumpdir

import (
	"errors"
	"fmt"
	"io"
	"iter"
	"math/bits"

	"github.com/corehaul/corehaul/mem"
)

// span is a part of a file, [off, end).
type span struct{ off, end int64 }

// journal is the contents of a journal without chunks and runs, which are streamed.
type journal struct {
	r    io.ReaderAt
	size int64

	version uint16
	ident   identRecord
	log     *logRecord // nil without a stored log
	facts   *Facts     // nil without a plan
	plan    *PlanInfo  // nil without a plan
	runsAt  int64      // offset of the first runs record
	body    int64      // offset behind ident or plan end
	seal    *sealRecord
	// reopened is the last seal that was taken back; nil if there was none.
	reopened *sealRecord

	have    *seqSet
	count   counts
	dataEnd int64 // end of the last chunk's data; without chunks, the offset of the first page

	end    int64  // of the last intact record
	broken []span // without intact records; the last one may reach to the end of the file
}

// counts sums up chunks.
type counts struct {
	chunks, pages, zero uint64
	bytes               int64 // stored bytes of pages
	codecs              map[uint32]uint64
}

func newCounts() counts { return counts{codecs: make(map[uint32]uint64)} }

func (c *counts) add(s shape, pages []PageRecord) {
	c.chunks++
	c.pages += s.pages
	c.zero += s.zero
	c.bytes += s.bytes
	for _, p := range pages {
		c.codecs[p.Flags]++
	}
}

// merge adds b to c.
func (c *counts) merge(b *counts) {
	c.chunks += b.chunks
	c.pages += b.pages
	c.zero += b.zero
	c.bytes += b.bytes
	for k, n := range b.codecs {
		c.codecs[k] += n
	}
}

// journalDamage returns a *DamageError for a place in the journal.
func journalDamage(off int64, format string, args ...any) error {
	return &DamageError{File: JournalName, Offset: off, Text: fmt.Sprintf(format, args...)}
}

// chunks calls each with every intact chunk record, in file order, which is also the order of the data. The record is
// reused.
func (j *journal) chunks(each func(c *chunkRecord) error) error {
	s, c := newScanner(j.r, j.size), new(chunkRecord)
	return j.records(s, j.body, func(rec *record) (bool, error) {
		if rec.typ != recChunk {
			return true, nil
		}
		if err := c.decode(rec.payload, j.plan); err != nil {
			return false, journalDamage(rec.off, "%v", err)
		}
		return true, each(c)
	})
}

// records calls fn with the intact records from off until fn returns false.
func (j *journal) records(s *scanner, off int64, fn func(rec *record) (more bool, err error)) error {
	broken := j.broken
	for off < j.end {
		if len(broken) > 0 && broken[0].off <= off {
			off, broken = max(off, broken[0].end), broken[1:]
			continue
		}
		rec, err := s.at(off)
		if errors.Is(err, errBroken) {
			return journalDamage(off, "record changed while it was read")
		}
		if err != nil {
			return err
		}
		more, err := fn(&rec)
		if err != nil || !more {
			return err
		}
		off = rec.end()
	}
	return nil
}

// runs yields the planned runs, ascending and merged. An error ends the sequence and is stored in *err.
func (j *journal) runs(err *error) iter.Seq[mem.Extent] {
	return func(yield func(mem.Extent) bool) {
		d := runDecoder{limit: j.facts.MaxPFN}
		*err = j.records(newScanner(j.r, j.size), j.runsAt, func(rec *record) (bool, error) {
			if rec.typ != recRuns {
				return false, nil
			}
			return d.piece(rec.payload, yield)
		})
	}
}

// progress returns the counts as callers see them.
func (j *journal) progress() Progress {
	p := Progress{Present: j.count.pages, Zero: j.count.zero, Chunks: j.count.chunks, PageData: j.count.bytes}
	if j.plan != nil {
		p.Planned, p.Bytes = j.plan.Pages, j.dataEnd
	}
	return p
}

// pageSize returns the page size of the plan, 0 without one.
func (j *journal) pageSize() int {
	if j.plan == nil {
		return 0
	}
	return j.plan.PageSize
}

// state returns the state of the dump according to the journal.
func (j *journal) state() State {
	if j.seal != nil {
		return j.seal.state
	}
	return StateArriving
}

// presentWindow is the number of page frames in one pass over the journal, a bitmap of 32 MiB. Machines of up to 1
// TiB need one pass.
const presentWindow = 1 << 28

// presentPages yields the pages of the journal's chunks as ascending runs. An error, such as a page in two chunks, ends
// the sequence and is stored in *err. To bound memory, it reads the journal once for each window with pages.
func (j *journal) presentPages(err *error) iter.Seq[mem.Extent] {
	return func(yield func(mem.Extent) bool) {
		windows, werr := j.windows()
		if *err = werr; werr != nil {
			return
		}
		set := make([]uint64, (min(uint64(j.plan.MaxPFN), presentWindow)+63)/64)
		for w := range (uint64(j.plan.MaxPFN) + presentWindow - 1) / presentWindow {
			if !windows[w] {
				continue
			}
			clear(set)
			base := mem.PFN(w * presentWindow)
			if *err = j.fill(set, base); *err != nil {
				return
			}
			if !bitRuns(set, base, yield) {
				return
			}
		}
	}
}

// windows returns the windows that have pages.
func (j *journal) windows() (map[uint64]bool, error) {
	found := make(map[uint64]bool)
	err := j.chunks(func(r *chunkRecord) error {
		for _, e := range r.extents {
			found[uint64(e.Start)/presentWindow] = true
			found[uint64(e.End()-1)/presentWindow] = true
		}
		return nil
	})
	return found, err
}

// fill sets the bits of the window's pages; base is its first frame.
func (j *journal) fill(set []uint64, base mem.PFN) error {
	limit := base + mem.PFN(len(set))*64
	return j.chunks(func(r *chunkRecord) error {
		for _, e := range r.extents {
			for pfn := max(e.Start, base); pfn < min(e.End(), limit); pfn++ {
				i := uint64(pfn - base)
				if set[i/64]>>(i%64)&1 != 0 {
					return journalDamage(-1, "pfn %d is in two chunks, one of them %d", pfn, r.seq)
				}
				set[i/64] |= 1 << (i % 64)
			}
		}
		return nil
	})
}

// bitRuns yields the runs of set bits.
func bitRuns(set []uint64, base mem.PFN, yield func(mem.Extent) bool) bool {
	var run mem.Extent
	for i, w := range set {
		at := base + mem.PFN(i)*64
		for done := 0; done < 64; {
			rest := w >> done
			if zeros := min(bits.TrailingZeros64(rest), 64-done); zeros > 0 {
				if run.Count > 0 && !yield(run) {
					return false
				}
				run, done = mem.Extent{}, done+zeros
				continue
			}
			ones := min(bits.TrailingZeros64(^rest), 64-done)
			if run.Count == 0 {
				run.Start = at + mem.PFN(done)
			}
			run.Count += uint64(ones) //nolint:gosec // not negative
			done += ones
		}
	}
	return run.Count == 0 || yield(run)
}
