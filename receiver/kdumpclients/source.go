package kdumpclients

import (
	"context"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/zeebo/xxh3"

	"github.com/corehaul/corehaul/chunk"
	"github.com/corehaul/corehaul/dumpdir"
	"github.com/corehaul/corehaul/internal/plainfile"
	"github.com/corehaul/corehaul/kernel"
	"github.com/corehaul/corehaul/machine"
	"github.com/corehaul/corehaul/mem"
	"github.com/corehaul/corehaul/protocol"
	"github.com/corehaul/corehaul/vmcore"
	"github.com/corehaul/corehaul/vmcore/elfcore"
	"github.com/corehaul/corehaul/vmcore/flattened"
	"github.com/corehaul/corehaul/vmcore/kdumpfile"
)

// errNoPages says that a dump broke off before its pages.
var errNoPages = errors.New("it broke off before the first page")

// source is a staged dump, open for its import.
type source struct {
	file *os.File
	img  vmcore.Image
	pages
	came    int64 // bytes of the file that have come
	account *vmcore.Account
	lack    string   // why the dump is incomplete, empty if it is not
	odd     []string // contradictions in the dump; if any, the client's file is kept
	kernel  *kernel.Kernel
}

// pages reads the pages of a source. The results are valid until the next call.
type pages interface {
	// record returns the stored form of a page, and its raw bytes. Errors are those of the page or the medium.
	record(pfn mem.PFN) (rec dumpdir.PageRecord, stored, raw []byte, err error)
}

// openSource opens the dump in file f. Errors that match those of vmcore are about its contents.
func (h *host) openSource(ctx context.Context, f *fileState, codec kdumpfile.Codec) (*source, error) {
	kind := "image"
	if f.Image.InPlace {
		kind = "file"
	}
	file, err := plainfile.Open(h.path(f.Num, kind))
	if err != nil {
		return nil, err
	}
	s := &source{file: file}
	if err := s.open(ctx, h.loadMap(f.Num), f, codec); err != nil {
		return nil, errors.Join(err, file.Close())
	}
	return s, nil
}

func (s *source) open(ctx context.Context, m *imageMap, f *fileState, codec kdumpfile.Codec) error {
	st, err := s.file.Stat()
	if err != nil {
		return err
	}
	file := &staged{ReaderAt: s.file, Coverage: new(flattened.Coverage)}
	if m != nil {
		file.Coverage = m.Coverage
	}
	s.came = file.Bytes()
	head := make([]byte, magicLen)
	if n, err := s.file.ReadAt(head, 0); err != nil && !errors.Is(err, io.EOF) {
		return err
	} else if !file.Has(0, int64(n)) {
		return errNoPages
	}
	isELF := sniff(head) == formELF
	if isELF {
		err = s.openELF(file, st.Size(), codec)
	} else {
		err = s.openKdump(file, st.Size(), f, codec)
	}
	if err != nil {
		return err
	}
	if s.account, err = vmcore.AccountOf(ctx, s.img); err != nil {
		return err
	}
	if s.account.Held == 0 && s.account.Planned+uint64(len(s.account.Lacks)) > 0 {
		return fmt.Errorf("%w: %s", errNoPages, s.account.Reason())
	}
	s.judge(f, isELF)
	return nil
}

// judge sets why the dump is incomplete. A file is complete if it has all that its headers name and, for a flattened stream,
// the end marker came.
func (s *source) judge(f *fileState, isELF bool) {
	reason := s.account.Reason()
	flat := slices.Contains(f.Image.Wrap, formFlat)
	// An ELF core has no end marker, so only its headers count.
	if f.Status == fileWhole || isELF && !flat && reason == "" {
		s.lack = reason
	} else {
		s.lack = "it broke off"
		if f.Reason != "" {
			s.lack += ": " + f.Reason
		}
		if reason != "" {
			s.lack += "; " + reason
		}
	}
	if len(s.odd) > 0 {
		s.lack = strings.TrimPrefix(s.lack+"; its PT_LOADs contradict each other: "+s.odd[0], "; ")
	}
}

func (s *source) openKdump(file *staged, size int64, f *fileState, codec kdumpfile.Codec) error {
	k, err := kdumpfile.New(file, size)
	if err != nil {
		return err
	}
	p := &kdumpPages{k: k, decode: dumpdir.NewPageDecoder(k.Info().PageSize)}
	if slices.ContainsFunc(f.Image.Wrap, form.compressed) {
		if p.encoder, err = kdumpfile.NewEncoder(codec, 1); err != nil {
			return err
		}
		p.out = make([]byte, 0, 2*k.Info().PageSize)
	}
	s.img, s.pages = k, p
	return nil
}

// openELF opens an ELF core. It ignores contradictions, because a partly useful dump is better than none.
func (s *source) openELF(file *staged, size int64, codec kdumpfile.Codec) error {
	e, err := elfcore.NewTolerant(file, size)
	if err != nil {
		return err
	}
	encoder, err := kdumpfile.NewEncoder(codec, 1)
	if err != nil {
		return err
	}
	page := e.Info().PageSize
	s.img, s.odd, s.pages = e, e.Contradictions(), &elfPages{e: e, encoder: encoder, raw: make([]byte, page), out: make([]byte, 0, 2*page)}
	return nil
}

// Close closes the file.
func (s *source) Close() error { return s.file.Close() }

// staged is the file of a dump. It knows which bytes have come: see vmcore.Sparse.
type staged struct {
	io.ReaderAt
	*flattened.Coverage
}

var _ vmcore.Sparse = (*staged)(nil)

// kdumpPages returns page records unchanged after it has decoded them. If the client compressed the whole file, its pages are
// raw and kdumpPages compresses each.
type kdumpPages struct {
	k        *kdumpfile.Reader
	decode   *dumpdir.PageDecoder
	encoder  *kdumpfile.Encoder // nil: records stay unchanged
	buf, out []byte
}

func (p *kdumpPages) record(pfn mem.PFN) (rec dumpdir.PageRecord, stored, raw []byte, err error) {
	stored, d, err := p.k.ReadStored(p.buf, pfn)
	if err != nil {
		return rec, nil, nil, err
	}
	p.buf = stored[:0]
	rec = dumpdir.PageRecord{Size: d.Size, Flags: d.Flags}
	raw, err = p.decode.Page(rec, stored)
	if err == nil && p.encoder != nil && d.Flags == uint32(kdumpfile.Raw) {
		stored, rec.Flags = p.encoder.EncodePage(p.out, raw)
		rec.Size = uint32(len(stored)) //nolint:gosec // at most a page
	}
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

// understand finds the kernel in the memory, if possible.
func (s *source) understand() (err error) {
	s.kernel, err = machine.Kernel(s.img, s.img.Info())
	return err
}

// facts returns the header facts of the stored vmcore.
func (s *source) facts(codec kdumpfile.Codec) dumpdir.Facts {
	info := s.img.Info()
	m := machine.FactsOf(info, s.kernel)
	f := dumpdir.Facts{
		Utsname: m.Utsname.ForHeader(), Time: m.CrashTime, PageSize: info.PageSize, MaxPFN: info.MaxPFN,
		NrCPUs: uint32(m.NrCPUs), CurrentCPU: uint32(max(m.CurrentCPU, 0)), //nolint:gosec // bounded by the notes and by the reader
		DumpLevel: uint8(max(m.DumpLevel, 0)), BigEndian: m.BigEndian, ExcludedVmemmap: m.ExcludedVmemmap, //nolint:gosec // at most 31
		Codecs: uint32(codec), Notes: info.Notes, RAM: s.img.RAM(),
	}
	if m.PhysBase != nil {
		f.PhysBase = *m.PhysBase
	}
	if k, ok := s.img.(*kdumpfile.Reader); ok {
		f.Codecs = k.Header().Status & uint32(kdumpfile.Zlib|kdumpfile.LZO|kdumpfile.Snappy|kdumpfile.Zstd)
		if p, ok := s.pages.(*kdumpPages); ok && p.encoder != nil {
			f.Codecs |= uint32(codec)
		}
	}
	return f
}

func (s *source) pageSize() uint32 { return uint32(s.img.Info().PageSize) } //nolint:gosec // at most 64 KiB

// plan counts and hashes the pages.
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
	per := uint64(protocol.ChunkPages(s.pageSize()))
	p.Chunks = (p.Pages + per - 1) / per
	copy(p.Hash[:], p.hash.Sum(nil)) // only the first half, because only this program resumes this plan
	return p.PlanEnd, nil
}

// chunks calls fn for each chunk that is not in have, in order. Chunk n has the n-th group of pages.
func (s *source) chunks(have []chunk.SeqRange, fn func(seq uint64, extents []mem.Extent) error) error {
	next := uint64(0)
	cut := protocol.NewCutter(s.pageSize(), func(extents []mem.Extent) error {
		seq := next
		next++
		if slices.ContainsFunc(have, func(r chunk.SeqRange) bool { return r.Contains(seq) }) {
			return nil
		}
		return fn(seq, extents)
	})
	for e, err := range s.img.Pages() {
		if err == nil {
			err = cut.Add(e)
		}
		if err != nil {
			return err
		}
	}
	return cut.Flush()
}

// describe names the format of the client's file, for people.
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
