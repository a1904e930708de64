package dumpcopy

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/zeebo/xxh3"

	"github.com/corehaul/corehaul/chunk"
	"github.com/corehaul/corehaul/dumpdir"
	"github.com/corehaul/corehaul/mem"
	"github.com/corehaul/corehaul/vmcore"
	"github.com/corehaul/corehaul/vmcore/kdumpfile"
)

// commitBytes is roughly the page data between two commits.
const commitBytes = 32 << 20

// pageCopy copies the pages of a source to a dump.
type pageCopy struct {
	*Copy
	ctx   context.Context
	s     *Source
	chunk dumpdir.Chunk
	sum   *xxh3.Hasher

	held  heldPages
	put   int64  // bytes since the last commit
	data  int64  // bytes of page data in all chunks
	over  bool   // the copy stopped with errMoreThanCame
	total uint64 // chunks
	first error  // why the first page that cannot be read is missing
}

// pages stores the plan and all pages that s has. OfDump accepts errors about the dump itself.
func (c *Copy) pages(ctx context.Context, s *Source) (*pageCopy, error) {
	p := &pageCopy{Copy: c, ctx: ctx, s: s, sum: xxh3.New()}
	defer p.held.open(s.img)()
	if err := p.plan(); err != nil {
		return nil, err
	}
	err := s.chunks(c.W.Have(), p.putChunk)
	if p.over = errors.Is(err, errMoreThanCame); err != nil && !p.over {
		return nil, err
	}
	_, err = c.W.Commit()
	return p, err
}

// errOtherPlan stops the copy of a dump whose copy was begun by a version of this program that counted the pages differently.
var errOtherPlan = fmt.Errorf("%w: the file does not have the pages with which its copy began", dumpdir.ErrBadPlan)

// errMoreThanCame stops the copy of a file in which many pages share bytes. Otherwise a host could store any multiple of what it sent.
// makedumpfile and QEMU share only the page of zeros, which is not stored.
var errMoreThanCame = errors.New("many of its pages have the same bytes of the file; they are not copied beyond the size of the file")

// Beyond is how many bytes larger than the file the page data may be. The copy stores whole pages, but a PT_LOAD may have part of one.
const Beyond = 16 << 20

// plan stores the plan unless the dump has it.
func (p *pageCopy) plan() error {
	end, err := p.s.walkPlan(func(mem.Extent) error { return p.ctx.Err() })
	if err != nil {
		return err
	}
	p.total = end.Chunks
	if old, ok := p.W.Plan(); ok {
		if !old.Is(&end) {
			return errOtherPlan
		}
		return nil
	}
	facts := p.s.Facts(p.Codec)
	// Descriptors of missing pages are a hole in the file.
	bitmaps := kdumpfile.BitmapBytes(facts.RAM, facts.PageSize, facts.MaxPFN)
	if err := p.charge(p.s.account.Held*kdumpfile.PageDescLen + uint64(bitmaps)); err != nil { //nolint:gosec // not negative
		return err
	}
	b, err := p.W.StartPlan(facts)
	if err != nil {
		return err
	}
	defer b.Abort()
	if _, err := p.s.walkPlan(b.Add); err != nil {
		return err
	}
	end.Sparse = p.s.account.Held < end.Pages/2
	return b.Finish(end)
}

// charge counts n bytes of the dump before they are written.
func (p *pageCopy) charge(n uint64) error {
	return p.Charge(p.ctx, n)
}

// putChunk stores the pages of a chunk that the file has.
func (p *pageCopy) putChunk(seq uint64, extents []mem.Extent) error {
	if err := p.ctx.Err(); err != nil {
		return err
	}
	c := &p.chunk
	if p.Progress != nil {
		p.Progress(seq, p.total)
	}
	c.Seq, c.Extents, c.Pages, c.Data = seq, c.Extents[:0], c.Pages[:0], c.Data[:0]
	p.sum.Reset()
	for _, e := range extents {
		if err := p.addRun(e); err != nil {
			return err
		}
	}
	if len(c.Extents) == 0 {
		return nil
	}
	c.RawSum = p.sum.Sum64()
	if p.data += int64(len(c.Data)); p.data > p.s.file.Came+Beyond {
		return errMoreThanCame
	}
	if err := p.charge(uint64(len(c.Data))); err != nil {
		return err
	}
	if err := p.W.PutChunk(c); err != nil {
		return err
	}
	if p.put += int64(len(c.Data)) + 1; p.put < commitBytes {
		return nil
	}
	p.put = 0
	_, err := p.W.Commit()
	return err
}

// addRun adds the pages that the file holds to the chunk. It skips gaps at once, because they may have billions of pages.
func (p *pageCopy) addRun(e mem.Extent) error {
	for e.Count > 0 {
		held, err := p.held.in(e)
		if err != nil {
			return err
		}
		for pfn := held.Start; pfn < held.End(); pfn++ {
			if err := p.add(pfn); err != nil {
				return err
			}
		}
		_, e = e.SplitAt(held.End())
	}
	return nil
}

// add adds a page to the chunk. It leaves out a page that is missing or cannot be decoded.
func (p *pageCopy) add(pfn mem.PFN) error {
	rec, stored, raw, err := p.s.record(pfn)
	switch {
	case err != nil && OfDump(err):
		if p.first == nil {
			p.first = err
		}
		return nil
	case err != nil:
		return err
	}
	c := &p.chunk
	if vmcore.IsZero(raw) {
		c.Extents = chunk.AppendPage(c.Extents, pfn, chunk.Zero)
		return nil
	}
	c.Extents = chunk.AppendPage(c.Extents, pfn, chunk.Data)
	c.Pages, c.Data = append(c.Pages, rec), append(c.Data, stored...)
	_, err = p.sum.Write(raw)
	return err
}

// OfDump reports whether an error is about the contents of the dump, not about the disk.
func OfDump(err error) bool {
	for _, of := range []error{
		vmcore.ErrExcluded, vmcore.ErrNotPresent, vmcore.ErrIncomplete, vmcore.ErrCorrupt, vmcore.ErrTruncated,
		vmcore.ErrUnknownFormat, vmcore.ErrUnsupported, dumpdir.ErrBadPlan, errNoPages,
	} {
		if errors.Is(err, of) {
			return true
		}
	}
	return false
}

// lacks returns why the dump is not complete, empty if it is. It counts what the dump has, because an earlier copy may have stored a
// part of it.
func (p *pageCopy) lacks() string {
	why := p.s.lack
	bad := p.W.Progress().Missing()
	bad -= min(bad, p.s.account.Missing())
	switch {
	case p.over:
		why += "; " + errMoreThanCame.Error()
	case bad > 0 && p.first != nil:
		why += fmt.Sprintf("; %d pages of the file cannot be read, the first: %v", bad, p.first)
	case bad > 0:
		why += fmt.Sprintf("; %d pages of the file cannot be read", bad)
	}
	return strings.TrimPrefix(why, "; ")
}
