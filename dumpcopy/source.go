package dumpcopy

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"hash"
	"io"
	"slices"
	"strings"

	"github.com/zeebo/xxh3"

	"github.com/corehaul/corehaul/chunk"
	"github.com/corehaul/corehaul/dumpdir"
	"github.com/corehaul/corehaul/kernel"
	"github.com/corehaul/corehaul/machine"
	"github.com/corehaul/corehaul/mem"
	"github.com/corehaul/corehaul/protocol"
	"github.com/corehaul/corehaul/vmcore"
	"github.com/corehaul/corehaul/vmcore/elfcore"
	"github.com/corehaul/corehaul/vmcore/kdumpfile"
)

// errNoPages says that a dump broke off before its pages.
var errNoPages = errors.New("it broke off before the first page")

// File is the file of a dump: an ELF core or a kdump-compressed file, reassembled if it was flattened.
type File struct {
	// ReaderAt may be a vmcore.Sparse or a vmcore.Holes. It must be safe for concurrent use.
	io.ReaderAt
	Size int64
	Came int64 // bytes of it that are there
	// Whole means that no more of the file was to come. Broken is why it broke off, if that is known.
	Whole  bool
	Broken string
	// Wrap has the formats that were around the file, the outermost first, for people. Flat is set if one of them was flattened.
	Wrap []string
	Flat bool
	// Packed means that the file was compressed as a whole. Its raw pages are compressed in the copy.
	Packed bool
	// Marked means that who wrote the file marks its end, as by another name. Then an ELF core is not whole only because it is as long as
	// its headers say: a file system that crashed may have left zeros. A flattened or packed file has such a mark always.
	Marked bool
}

// hasEndMark reports whether only a mark shows that the file is whole.
func (f *File) hasEndMark() bool { return f.Flat || f.Packed || f.Marked }

// magicLen is how many bytes tell an ELF file.
const magicLen = 4

// isELF reports whether the file is an ELF file. If the file lacks its first bytes, the error matches one about its contents.
func (f *File) isELF() (bool, error) {
	head := make([]byte, magicLen)
	n, err := f.ReadAt(head, 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return false, err
	}
	if !vmcore.HasBytes(f.ReaderAt, f.Size, 0, int64(n)) {
		return false, errNoPages
	}
	return string(head[:n]) == "\x7fELF", nil
}

// Source is the file of a dump, open to be copied.
type Source struct {
	img vmcore.Image
	pages
	file    File
	account *vmcore.Account
	lack    string   // why the dump is incomplete, empty if it is not
	odd     []string // contradictions in the dump; if any, the file itself is kept
	kernel  *kernel.Kernel
}

// pages reads the pages of a source. The results are valid until the next call.
type pages interface {
	// record returns the stored form of a page, and its raw bytes. Errors are those of the page or the medium.
	record(pfn mem.PFN) (rec dumpdir.PageRecord, stored, raw []byte, err error)
}

// Open opens the dump in a file. codec compresses pages that the file has uncompressed. An error that OfDump accepts is about the
// contents of the file. The caller keeps ownership of the file.
func Open(ctx context.Context, f File, codec kdumpfile.Codec) (*Source, error) {
	s := &Source{file: f}
	isELF, err := f.isELF()
	if err != nil {
		return nil, err
	}
	if isELF {
		err = s.openELF(codec)
	} else {
		err = s.openKdump(codec)
	}
	if err != nil {
		return nil, err
	}
	if err := s.look(ctx, isELF); err != nil {
		return nil, err
	}
	return s, nil
}

// OpenSet is Open for pieces of a --split set. The error matches kdumpfile.ErrOtherSet if they are not of one set.
func OpenSet(ctx context.Context, files []File, codec kdumpfile.Codec) (*Source, error) {
	s := &Source{file: files[0]}
	s.file.Wrap = append(slices.Clone(s.file.Wrap), "split")
	s.file.Came = 0
	var pieces []*kdumpfile.Reader
	for _, f := range files {
		k, err := kdumpfile.New(f.ReaderAt, f.Size)
		if err != nil {
			return nil, err
		}
		pieces = append(pieces, k)
		s.file.Came += f.Came
		s.file.Packed = s.file.Packed || f.Packed
		if s.file.Whole && !f.Whole {
			s.file.Whole, s.file.Broken = false, f.Broken
		}
	}
	set, err := kdumpfile.Join(pieces)
	if err != nil {
		return nil, err
	}
	if err := s.useKdump(set, codec); err != nil {
		return nil, err
	}
	if err := s.look(ctx, false); err != nil {
		return nil, err
	}
	return s, nil
}

// look counts what the file has.
func (s *Source) look(ctx context.Context, isELF bool) (err error) {
	if s.account, err = vmcore.AccountOf(ctx, s.img); err != nil {
		return err
	}
	if s.account.Held == 0 && s.account.Planned+uint64(len(s.account.Lacks)) > 0 {
		return fmt.Errorf("%w: %s", errNoPages, s.account.Reason())
	}
	s.judge(isELF)
	return nil
}

// judge sets why the dump is incomplete. A file is complete if it has all that its headers name and, for a flattened stream,
// the end marker came.
func (s *Source) judge(isELF bool) {
	reason := s.account.Reason()
	// A plain ELF core has no end marker, so only its headers count.
	if s.file.Whole || isELF && !s.file.hasEndMark() && reason == "" {
		s.lack = reason
	} else {
		s.lack = "it broke off"
		if s.file.Broken != "" {
			s.lack += ": " + s.file.Broken
		}
		if reason != "" {
			s.lack += "; " + reason
		}
	}
	if len(s.odd) > 0 {
		s.lack = strings.TrimPrefix(s.lack+"; its PT_LOADs contradict each other: "+s.odd[0], "; ")
	}
}

func (s *Source) openKdump(codec kdumpfile.Codec) error {
	k, err := kdumpfile.New(s.file.ReaderAt, s.file.Size)
	if err != nil {
		return err
	}
	return s.useKdump(k, codec)
}

// kdumpImage is a kdump-compressed file, or a set of them.
type kdumpImage interface {
	vmcore.Image
	Header() *kdumpfile.Header
	ReadStored(buf []byte, pfn mem.PFN) ([]byte, kdumpfile.PageDesc, error)
}

func (s *Source) useKdump(k kdumpImage, codec kdumpfile.Codec) (err error) {
	p := &kdumpPages{k: k, decode: dumpdir.NewPageDecoder(k.Info().PageSize)}
	if s.file.Packed {
		if p.encoder, err = kdumpfile.NewEncoder(codec, 1); err != nil {
			return err
		}
		p.out = make([]byte, 0, 2*k.Info().PageSize)
	}
	s.img, s.pages = k, p
	return nil
}

// openELF opens an ELF core. It ignores contradictions, because a partly useful dump is better than none.
func (s *Source) openELF(codec kdumpfile.Codec) error {
	e, err := elfcore.NewTolerant(s.file.ReaderAt, s.file.Size)
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

// kdumpPages returns page records unchanged after it has decoded them. If the whole file was compressed, its pages are
// raw and kdumpPages compresses each.
type kdumpPages struct {
	k        kdumpImage
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

// Understand finds the kernel in the memory, if possible. Without it, the dump says less of its machine and has no log of its own.
func (s *Source) Understand() (err error) {
	s.kernel, err = machine.Kernel(s.img, s.img.Info())
	return err
}

// Machine returns what the dump says of its machine. Call Understand before.
func (s *Source) Machine() machine.Facts { return machine.FactsOf(s.img.Info(), s.kernel) }

// Lack returns why the dump is not complete, as far as its headers and descriptors say. It is empty for a complete one.
func (s *Source) Lack() string { return s.lack }

// Doubt adds a reason why the dump is not complete, which only the caller knows.
func (s *Source) Doubt(why string) { s.lack = strings.TrimPrefix(s.lack+"; "+why, "; ") }

// Same reports whether img has the same bytes in all pages that the file holds. A page that cannot be read is not the same. Errors are those
// of ctx and of the medium.
func (s *Source) Same(ctx context.Context, img vmcore.Image) (bool, error) {
	size := s.img.Info().PageSize
	if img.Info().PageSize != size {
		return false, nil
	}
	mine, other := make([]byte, size), make([]byte, size)
	for e, err := range vmcore.HeldPages(s.img) {
		if err == nil {
			err = ctx.Err()
		}
		if err != nil {
			return false, err
		}
		for pfn := e.Start; pfn < e.End(); pfn++ {
			if err := cmp.Or(s.img.ReadPage(mine, pfn), img.ReadPage(other, pfn)); err != nil && !OfDump(err) {
				return false, err
			} else if err != nil || !bytes.Equal(mine, other) {
				return false, nil
			}
		}
	}
	return true, nil
}

// Held returns how many pages the file holds, and the size of a page in bytes.
func (s *Source) Held() (pages, pageSize uint64) { return s.account.Held, uint64(s.pageSize()) }

// PagesAreCopied reports whether the copy has the stored form of pages that the file has, so that it is not larger.
func (s *Source) PagesAreCopied() bool {
	_, ok := s.pages.(*kdumpPages)
	return ok
}

// Facts returns the header facts of the copy. codec is that of Open.
func (s *Source) Facts(codec kdumpfile.Codec) dumpdir.Facts {
	info := s.img.Info()
	m := s.Machine()
	f := dumpdir.Facts{
		Utsname: m.Utsname.ForHeader(), Time: m.CrashTime, PageSize: info.PageSize, MaxPFN: info.MaxPFN,
		NrCPUs: uint32(m.NrCPUs), CurrentCPU: uint32(max(m.CurrentCPU, 0)), //nolint:gosec // bounded by the notes and by the reader
		DumpLevel: uint8(max(m.DumpLevel, 0)), BigEndian: m.BigEndian, ExcludedVmemmap: m.ExcludedVmemmap, //nolint:gosec // at most 31
		Codecs: uint32(codec), Notes: info.Notes, RAM: s.img.RAM(),
	}
	if m.PhysBase != nil {
		f.PhysBase = *m.PhysBase
	}
	if k, ok := s.img.(kdumpImage); ok {
		f.Codecs = k.Header().Status & uint32(kdumpfile.Zlib|kdumpfile.LZO|kdumpfile.Snappy|kdumpfile.Zstd)
		if s.file.Packed {
			f.Codecs |= uint32(codec)
		}
	}
	return f
}

func (s *Source) pageSize() uint32 { return uint32(s.img.Info().PageSize) } //nolint:gosec // at most 64 KiB

// plan counts and hashes the pages.
type plan struct {
	dumpdir.PlanEnd
	hash hash.Hash64
}

// walkPlan calls fn for the runs of pages and returns the plan.
func (s *Source) walkPlan(fn func(mem.Extent) error) (dumpdir.PlanEnd, error) {
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
func (s *Source) chunks(have []chunk.SeqRange, fn func(seq uint64, extents []mem.Extent) error) error {
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

// describe names the format of the file, for people.
func (s *Source) describe() string {
	inner := s.img.Info().Format
	made := "makedumpfile"
	if inner == vmcore.FormatELF && !s.file.Flat {
		made = "/proc/vmcore"
	}
	return fmt.Sprintf("%s (%s)", made, strings.Join(append([]string{inner}, s.file.Wrap...), ", "))
}
