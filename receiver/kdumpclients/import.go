package kdumpclients

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

// importer copies the pages of a source to a dump.
type importer struct {
	ctx   context.Context
	j     *job
	s     *source
	w     *dumpdir.Writer
	chunk dumpdir.Chunk
	sum   *xxh3.Hasher

	held    heldPages
	put     int64 // bytes since the last commit
	data    int64 // bytes of page data in all chunks
	over    bool  // the copy stopped with errMoreThanCame
	missing uint64
	first   error // why the first missing page is missing
}

// pagesOf stores the plan and all pages that s has. Errors about the dump itself match one of vmcore's or
// dumpdir.ErrBadPlan.
func (j *job) pagesOf(ctx context.Context, s *source, w *dumpdir.Writer) (*importer, error) {
	im := &importer{ctx: ctx, j: j, s: s, w: w, sum: xxh3.New()}
	defer im.held.open(s.img)()
	if err := im.plan(); err != nil {
		return nil, err
	}
	err := s.chunks(w.Have(), im.putChunk)
	if im.over = errors.Is(err, errMoreThanCame); err != nil && !im.over {
		return nil, err
	}
	_, err = w.Commit()
	return im, err
}

// errOtherPlan stops the copy of a dump whose import was begun by a version of this program that counted the pages differently.
var errOtherPlan = fmt.Errorf("%w: the staged dump does not have the pages with which its import began", dumpdir.ErrBadPlan)

// errMoreThanCame stops the copy of a file in which many pages share bytes. Otherwise a host could store any multiple of what it sent.
// makedumpfile and QEMU share only the page of zeros, which is not stored.
var errMoreThanCame = errors.New("many of its pages have the same bytes of the file; they are not copied beyond the size of the file")

// beyond is how many bytes larger than the file the page data may be. The copy stores whole pages, but a PT_LOAD may have part of one.
const beyond = 16 << 20

// plan stores the plan unless the dump has it.
func (im *importer) plan() error {
	end, err := im.s.walkPlan(func(mem.Extent) error { return im.ctx.Err() })
	if err != nil {
		return err
	}
	if old, ok := im.w.Plan(); ok {
		if !old.Is(&end) {
			return errOtherPlan
		}
		return nil
	}
	facts := im.s.facts(im.j.svc.cfg.Codec)
	// Descriptors of missing pages are a hole in the file.
	bitmaps := kdumpfile.BitmapBytes(facts.RAM, facts.PageSize, facts.MaxPFN)
	if err := im.charge(im.s.account.Held*kdumpfile.PageDescLen + uint64(bitmaps)); err != nil { //nolint:gosec // not negative
		return err
	}
	b, err := im.w.StartPlan(facts)
	if err != nil {
		return err
	}
	defer b.Abort()
	if _, err := im.s.walkPlan(b.Add); err != nil {
		return err
	}
	end.Sparse = im.s.account.Held < end.Pages/2
	return b.Finish(end)
}

// charge counts n bytes of the dump before they are written.
func (im *importer) charge(n uint64) error {
	return im.j.h.account.ChargeCopy(im.ctx, n, uint64(im.s.came)) //nolint:gosec // not negative
}

// putChunk stores the pages of a chunk that the file has.
func (im *importer) putChunk(seq uint64, extents []mem.Extent) error {
	if err := im.ctx.Err(); err != nil {
		return err
	}
	c := &im.chunk
	c.Seq, c.Extents, c.Pages, c.Data = seq, c.Extents[:0], c.Pages[:0], c.Data[:0]
	im.sum.Reset()
	for _, e := range extents {
		if err := im.addRun(e); err != nil {
			return err
		}
	}
	if len(c.Extents) == 0 {
		return nil
	}
	c.RawSum = im.sum.Sum64()
	if im.data += int64(len(c.Data)); im.data > im.s.came+beyond {
		return errMoreThanCame
	}
	if err := im.charge(uint64(len(c.Data))); err != nil {
		return err
	}
	if err := im.w.PutChunk(c); err != nil {
		return err
	}
	if im.put += int64(len(c.Data)) + 1; im.put < commitBytes {
		return nil
	}
	im.put = 0
	_, err := im.w.Commit()
	return err
}

// addRun adds the pages that the file holds to the chunk. It skips gaps at once, because they may have billions of pages.
func (im *importer) addRun(e mem.Extent) error {
	for e.Count > 0 {
		held, err := im.held.in(e)
		if err != nil {
			return err
		}
		im.missing += uint64(held.Start - e.Start)
		for pfn := held.Start; pfn < held.End(); pfn++ {
			if err := im.add(pfn); err != nil {
				return err
			}
		}
		_, e = e.SplitAt(held.End())
	}
	return nil
}

// add adds a page to the chunk. It leaves out a page that is missing or cannot be decoded.
func (im *importer) add(pfn mem.PFN) error {
	rec, stored, raw, err := im.s.record(pfn)
	switch {
	case err != nil && ofDump(err):
		im.missing++
		if im.first == nil {
			im.first = err
		}
		return nil
	case err != nil:
		return err
	}
	c := &im.chunk
	if vmcore.IsZero(raw) {
		c.Extents = chunk.AppendPage(c.Extents, pfn, chunk.Zero)
		return nil
	}
	c.Extents = chunk.AppendPage(c.Extents, pfn, chunk.Data)
	c.Pages, c.Data = append(c.Pages, rec), append(c.Data, stored...)
	_, err = im.sum.Write(raw)
	return err
}

// ofDump reports whether an error is about the contents of the dump, not about the disk.
func ofDump(err error) bool {
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

// lacks returns why the dump is not complete, empty if it is.
func (im *importer) lacks() string {
	switch {
	case im.over:
		return strings.TrimPrefix(im.s.lack+"; "+errMoreThanCame.Error(), "; ")
	case im.missing > im.s.account.Missing():
		bad := fmt.Sprintf("%d pages of the client's file cannot be read, the first: %v", im.missing, im.first)
		return strings.TrimPrefix(im.s.lack+"; "+bad, "; ")
	}
	return im.s.lack
}
