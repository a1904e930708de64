package stock

import (
	"errors"
	"fmt"
	"hash"
	"io"
	"math"
	"os"
	"slices"

	"github.com/zeebo/xxh3"

	"github.com/corehaul/corehaul/dumpdir"
	"github.com/corehaul/corehaul/internal/plainfile"
	"github.com/corehaul/corehaul/kernel"
	"github.com/corehaul/corehaul/machine"
	"github.com/corehaul/corehaul/mem"
	"github.com/corehaul/corehaul/vmcore"
	"github.com/corehaul/corehaul/vmcore/elfcore"
	"github.com/corehaul/corehaul/vmcore/flattened"
	"github.com/corehaul/corehaul/vmcore/kdumpfile"
)

// errNoPages is why there are no pages to be had of a dump that broke off early.
var errNoPages = errors.New("it broke off before the first page")

// source is a dump that is staged, open for being imported.
type source struct {
	file *os.File
	img  vmcore.Image
	pages
	lack   string // why it is known not to be whole; empty when nothing is known
	broken bool   // bytes of it are missing
	kernel *kernel.Kernel
}

// pages reads the pages of a source. The record and its data are valid until the next call.
type pages interface {
	// record returns a page as it is to be stored, and its raw bytes. An error is about the page, or the medium.
	record(pfn mem.PFN) (rec dumpdir.PageRecord, stored, raw []byte, err error)
}

// openSource opens the dump in file f. An error that matches one of vmcore's says what is wrong with it.
func (h *host) openSource(f *fileState, codec kdumpfile.Codec) (*source, error) {
	kind := "image"
	if f.Image.InPlace {
		kind = "file"
	}
	file, err := plainfile.Open(h.path(f.Num, kind))
	if err != nil {
		return nil, err
	}
	s := &source{file: file}
	if err := s.open(h.loadMap(f.Num), f, codec); err != nil {
		return nil, errors.Join(err, file.Close())
	}
	return s, nil
}

func (s *source) open(m *imageMap, f *fileState, codec kdumpfile.Codec) error {
	st, err := s.file.Stat()
	if err != nil {
		return err
	}
	have, size := new(flattened.Coverage), st.Size()
	if m != nil {
		have = m.Coverage
	}
	s.broken = f.Status != fileWhole || have.Bytes() < size && !f.Image.Marked
	if s.broken {
		s.lack = "it broke off"
		if f.Reason != "" {
			s.lack += ": " + f.Reason
		}
	}
	head := make([]byte, magicLen)
	if n, err := s.file.ReadAt(head, 0); err != nil && !errors.Is(err, io.EOF) {
		return err
	} else if !have.Has(0, int64(n)) {
		return errNoPages
	}
	if sniff(head) == formELF {
		return s.openELF(have, size, codec, slices.Contains(f.Image.Wrap, formFlat))
	}
	return s.openKdump(have, size)
}

func (s *source) openKdump(have *flattened.Coverage, size int64) error {
	first, second, n, err := kdumpfile.Bitmaps(s.file, size)
	if err != nil {
		return err
	}
	// In a cyclic dump the 2nd one comes in pieces, between the pages.
	if !have.Has(first, n) || !s.broken && !have.Has(second, n) {
		return fmt.Errorf("%w: its bitmaps did not come", errNoPages)
	}
	gaps := &gapReader{r: s.file, have: have, from: math.MaxInt64}
	k, err := kdumpfile.New(gaps, size)
	if err != nil {
		return err
	}
	l := k.Layout()
	if s.broken {
		gaps.from = l.DescsEnd()
		if !have.Has(l.Descs, kdumpfile.PageDescLen) {
			return errNoPages
		}
	}
	if _, split := k.Split(); split {
		s.lack = "one piece of a --split set"
	}
	if s.lack == "" && k.Info().Incomplete {
		s.lack = "makedumpfile marked it as incomplete"
	}
	if known := have.From(second); known < n {
		s.lack += fmt.Sprintf("; which pages it was to have from pfn %d on did not come, and none of them counts as missing", 8*known)
	}
	s.img = k
	s.pages = &kdumpPages{k: k, have: have, broken: s.broken, decode: dumpdir.NewPageDecoder(l.PageSize)}
	return nil
}

// openELF opens an ELF core. It is whole when all is there that its headers speak of, unless an end marker has to say so.
func (s *source) openELF(have *flattened.Coverage, size int64, codec kdumpfile.Codec, marker bool) error {
	gaps := &gapReader{r: s.file, have: have, from: math.MaxInt64}
	if s.broken {
		gaps.from = 0
	}
	e, err := elfcore.New(gaps, size)
	switch {
	case err == nil && s.broken && !marker && have.Bytes() == size:
		s.broken, s.lack = false, ""
	case err != nil:
		if s.lack == "" {
			s.lack = err.Error()
		}
		if e, err = elfcore.NewTolerant(gaps, size); err != nil {
			return err
		}
	}
	if e.Info().Incomplete && s.lack == "" {
		s.lack = "makedumpfile marked it as incomplete"
	}
	encoder, err := kdumpfile.NewEncoder(codec, 1)
	if err != nil {
		return err
	}
	page := e.Info().PageSize
	s.img, s.pages = e, &elfPages{e: e, encoder: encoder, raw: make([]byte, page), out: make([]byte, 0, 2*page)}
	return nil
}

// Close closes the file.
func (s *source) Close() error { return s.file.Close() }

// gapReader reads a file that has not come whole. From offset from on bytes that did not come are an error, before that they are zero.
type gapReader struct {
	r    io.ReaderAt
	have *flattened.Coverage
	from int64
}

// ReadAt implements io.ReaderAt.
func (g *gapReader) ReadAt(p []byte, off int64) (int, error) {
	if off >= g.from && !g.have.Has(off, int64(len(p))) {
		return 0, vmcore.Truncatedf("file", off, "%d bytes did not come", len(p))
	}
	return g.r.ReadAt(p, off)
}

// kdumpPages takes page records as they are, once they were decoded.
type kdumpPages struct {
	k      *kdumpfile.Reader
	have   *flattened.Coverage
	broken bool
	decode *dumpdir.PageDecoder
	buf    []byte
}

func (p *kdumpPages) record(pfn mem.PFN) (rec dumpdir.PageRecord, stored, raw []byte, err error) {
	if p.broken {
		if _, off, err := p.k.Desc(pfn); err != nil {
			return rec, nil, nil, err
		} else if !p.have.Has(off, kdumpfile.PageDescLen) {
			return rec, nil, nil, vmcore.ErrIncomplete
		}
	}
	stored, d, err := p.k.ReadStored(p.buf, pfn)
	if err != nil {
		return rec, nil, nil, err
	}
	p.buf = stored[:0]
	rec = dumpdir.PageRecord{Size: d.Size, Flags: d.Flags}
	raw, err = p.decode.Page(rec, stored)
	return rec, stored, raw, err
}

// elfPages compresses pages.
type elfPages struct {
	e        *elfcore.File
	encoder  *kdumpfile.Encoder
	raw, out []byte
}

func (p *elfPages) record(pfn mem.PFN) (rec dumpdir.PageRecord, stored, raw []byte, err error) {
	if err := p.e.ReadPage(p.raw, pfn); err != nil {
		return rec, nil, nil, err
	}
	stored, flags := p.encoder.EncodePage(p.out, p.raw)
	return dumpdir.PageRecord{Size: uint32(len(stored)), Flags: flags}, stored, p.raw, nil //nolint:gosec // at most a page
}

// understand gives meaning to the memory, as far as that can be done.
func (s *source) understand() (err error) {
	s.kernel, err = machine.Kernel(s.img, s.img.Info())
	return err
}

// facts is what the front of the stored vmcore says.
func (s *source) facts(codec kdumpfile.Codec) dumpdir.Facts {
	info := s.img.Info()
	m := machine.FactsOf(info, s.kernel)
	f := dumpdir.Facts{
		Utsname: dumpdir.Utsname(m.Utsname.ForHeader()), Time: m.CrashTime, PageSize: info.PageSize, MaxPFN: info.MaxPFN,
		NrCPUs: uint32(m.NrCPUs), CurrentCPU: uint32(max(m.CurrentCPU, 0)), //nolint:gosec // bounded by the notes and by the reader
		DumpLevel: uint8(max(m.DumpLevel, 0)), BigEndian: m.BigEndian, ExcludedVmemmap: m.ExcludedVmemmap, //nolint:gosec // at most 31
		Codecs: uint32(codec), Notes: info.Notes, RAM: s.img.RAM(),
	}
	if m.PhysBase != nil {
		f.PhysBase = *m.PhysBase
	}
	if k, ok := s.img.(*kdumpfile.Reader); ok {
		f.Codecs = k.Header().Status & uint32(kdumpfile.Zlib|kdumpfile.LZO|kdumpfile.Snappy|kdumpfile.Zstd)
	}
	return f
}

// plan is which pages there are, in short.
type plan struct {
	dumpdir.PlanEnd
	hash hash.Hash64
}

// walkPlan calls fn for the runs of pages and returns the plan.
func (s *source) walkPlan(fn func(mem.Extent) error) (dumpdir.PlanEnd, error) {
	p := plan{hash: xxh3.New()}
	for e, err := range s.img.Pages() {
		if err == nil {
			_, err = fmt.Fprintf(p.hash, "%d+%d\n", e.Start, e.Count)
		}
		if err == nil {
			err = fn(e)
		}
		if err != nil {
			return p.PlanEnd, err
		}
		p.Pages += e.Count
	}
	per := s.chunkPages()
	p.Hash, p.Chunks = p.hash.Sum64(), (p.Pages+per-1)/per
	return p.PlanEnd, nil
}

// chunkBytes is how many raw bytes a chunk has, as those of our own sender.
const chunkBytes = 1 << 20

func (s *source) chunkPages() uint64 { return chunkBytes / uint64(s.img.Info().PageSize) } //nolint:gosec // a page size is positive

// chunks calls fn for the pages of each chunk that is not in have, in order. Chunk n has the n-th group of pages.
func (s *source) chunks(have []dumpdir.SeqRange, fn func(seq uint64, extents []mem.Extent) error) error {
	per, seq, n := s.chunkPages(), uint64(0), uint64(0)
	var group []mem.Extent
	emit := func() error {
		defer func() { group, n, seq = group[:0], 0, seq+1 }()
		if n == 0 || slices.ContainsFunc(have, func(r dumpdir.SeqRange) bool { return seq >= r.Start && seq < r.End() }) {
			return nil
		}
		return fn(seq, group)
	}
	for e, err := range s.img.Pages() {
		if err != nil {
			return err
		}
		for e.Count > 0 {
			take := min(e.Count, per-n)
			group = append(group, mem.Extent{Start: e.Start, Count: take})
			e.Start, e.Count, n = e.Start+mem.PFN(take), e.Count-take, n+take
			if n == per {
				if err := emit(); err != nil {
					return err
				}
			}
		}
	}
	return emit()
}

// describe names what the dump came in, for people.
func (i *imageState) describe(f form) string {
	made := "makedumpfile"
	if f == formELF && !slices.Contains(i.Wrap, formFlat) {
		made = "/proc/vmcore"
	}
	s := string(f)
	for _, w := range i.Wrap {
		s += ", " + string(w)
	}
	return fmt.Sprintf("%s (%s)", made, s)
}
