package export

import (
	"context"
	"errors"
	"io"
	"iter"
	"os"
	"runtime"
	"sync"

	"github.com/corehaul/corehaul/internal/plainfile"
	"github.com/corehaul/corehaul/machine"
	"github.com/corehaul/corehaul/mem"
	"github.com/corehaul/corehaul/vmcore"
	"github.com/corehaul/corehaul/vmcore/kdumpfile"
)

// Kdump writes src to the empty file out, as a kdump-compressed file. compress names the compressor; if it is empty,
// a complete kdump-compressed file is copied and everything else gets snappy. Kdump leaves out pages that cannot be
// read, and returns their number.
func Kdump(ctx context.Context, out *os.File, src Source, compress string) (lost uint64, err error) {
	if src.AsItIs(compress) {
		in, err := plainfile.Open(src.Path)
		if err != nil {
			return 0, err
		}
		return 0, errors.Join(copySparse(ctx, out, in, src.meter), in.Close())
	}
	codec := kdumpfile.Snappy
	if compress != "" {
		if codec, err = kdumpfile.ParseCodec(compress); err != nil {
			return 0, err
		}
	}
	r := &recoder{src: src, out: out, codec: codec, size: src.Info().PageSize}
	return r.run(ctx, headerOf(src, codec))
}

// copySparse copies in to the empty file out. What is zero becomes a hole.
func copySparse(ctx context.Context, out, in *os.File, m *meter) error {
	st, err := in.Stat()
	if err != nil {
		return err
	}
	m.begin(StepCopy, st.Size())
	buf := make([]byte, 64<<10)
	for off := int64(0); ctx.Err() == nil; {
		at, ok := plainfile.NextData(in, off)
		if !ok || at >= st.Size() {
			return out.Truncate(st.Size())
		}
		n, err := io.ReadFull(io.NewSectionReader(in, at, st.Size()-at), buf)
		if err != nil && !errors.Is(err, io.ErrUnexpectedEOF) {
			return err
		}
		if !vmcore.IsZero(buf[:n]) {
			if _, err := out.WriteAt(buf[:n], at); err != nil {
				return err
			}
		}
		m.add(int(at-off) + n)
		off = at + int64(n)
	}
	return ctx.Err()
}

// headerOf returns the headers of a kdump-compressed file for img. It prefers what img's own file says.
func headerOf(img vmcore.Image, codec kdumpfile.Codec) *kdumpfile.Header {
	info := img.Info()
	k, err := machine.Kernel(img, info)
	if err != nil {
		k = nil // then memory adds no facts
	}
	m := machine.FactsOf(info, k)
	h := &kdumpfile.Header{
		Utsname: m.Utsname.ForHeader(), Time: info.Timestamp, ByteOrder: info.ByteOrder, PageSize: info.PageSize, MaxPFN: info.MaxPFN,
		NrCPUs: m.NrCPUs, CurrentCPU: m.CurrentCPU, DumpLevel: max(m.DumpLevel, 0),
		Notes: info.Notes, Eraseinfo: true, RAM: img.RAM(), Status: uint32(codec),
	}
	if m.PhysBase != nil {
		h.PhysBase = *m.PhysBase
	}
	if h.Time.IsZero() {
		h.Time = m.CrashTime
	}
	if m.ExcludedVmemmap {
		h.Status |= kdumpfile.StatusExcludedVmemmap
	}
	return h
}

// recoder encodes the pages of an image again.
type recoder struct {
	src   Source
	out   *os.File
	codec kdumpfile.Codec
	size  int // bytes of a page
	w     *kdumpfile.Writer
	pos   int64 // where the next page's data goes
	lost  uint64
}

func (r *recoder) run(ctx context.Context, header *kdumpfile.Header) (lost uint64, err error) {
	if err := checkRoom(r.out, header); err != nil {
		return 0, err
	}
	var pagesErr error
	if r.w, err = kdumpfile.Create(interruptible{r.out, ctx}, header, r.pages(&pagesErr)); err != nil {
		return 0, err
	}
	r.pos = r.w.Layout().FirstPage()
	r.src.meter.begin(StepPages, r.src.pageBytes())
	batches, err := r.batches()
	if err != nil {
		return 0, err
	}
	var group []*batch
	for e := range r.pages(&pagesErr) {
		for e.Count > 0 {
			b := batches[len(group)]
			b.extent, e = e.SplitAt(e.Start + batchPages)
			if group = append(group, b); len(group) < len(batches) {
				continue
			}
			if err := errors.Join(ctx.Err(), r.write(group)); err != nil {
				return r.lost, err
			}
			group = group[:0]
		}
	}
	if err := errors.Join(pagesErr, r.write(group)); err != nil {
		return r.lost, err
	}
	if !r.src.Has.Complete() || r.w.Missing() > 0 {
		return r.lost, r.w.SealPartial()
	}
	return r.lost, r.w.SealComplete()
}

// pages yields the pages that the file of the image holds. If an error ends the sequence, *err is set.
func (r *recoder) pages(err *error) iter.Seq[mem.Extent] {
	return func(yield func(mem.Extent) bool) {
		for e, pageErr := range vmcore.HeldPages(r.src) {
			if pageErr != nil {
				*err = pageErr
				return
			}
			if !yield(e) {
				return
			}
		}
	}
}

// batchPages is how many pages one goroutine encodes at a time.
const batchPages = 256

// batch is a run of pages that one goroutine encodes.
type batch struct {
	r       *recoder
	encoder *kdumpfile.Encoder
	page    []byte
	room    []byte
	extent  mem.Extent
	data    []byte               // stored bytes of the pages, back to back
	descs   []kdumpfile.PageDesc // their offsets count from the start of data
	kinds   []pageKind
	err     error
}

type pageKind uint8

const (
	pageData pageKind = iota
	pageZero
	pageLost
)

// batches returns one batch for each encoding goroutine.
func (r *recoder) batches() ([]*batch, error) {
	all := make([]*batch, runtime.GOMAXPROCS(0))
	for i := range all {
		encoder, err := kdumpfile.NewEncoder(r.codec, 1)
		if err != nil {
			return nil, err
		}
		all[i] = &batch{r: r, encoder: encoder, page: make([]byte, r.size), room: make([]byte, 0, 2*r.size)}
	}
	return all, nil
}

// write encodes the batches in parallel and writes them in order.
func (r *recoder) write(group []*batch) error {
	var wg sync.WaitGroup
	for _, b := range group {
		wg.Go(b.encode)
	}
	wg.Wait()
	for _, b := range group {
		if b.err != nil {
			return b.err
		}
		if err := r.put(b); err != nil {
			return err
		}
	}
	return nil
}

func (b *batch) encode() {
	b.data, b.descs, b.kinds, b.err = b.data[:0], b.descs[:0], b.kinds[:0], nil
	for pfn := b.extent.Start; pfn < b.extent.End() && b.err == nil; pfn++ {
		b.encodePage(pfn)
	}
}

func (b *batch) encodePage(pfn mem.PFN) {
	var desc kdumpfile.PageDesc
	kind := pageData
	err := b.r.src.ReadPage(b.page, pfn)
	switch {
	case errors.Is(err, vmcore.ErrIncomplete), errors.Is(err, vmcore.ErrCorrupt), errors.Is(err, vmcore.ErrTruncated):
		kind = pageLost
	case err != nil:
		b.err = err
		return
	case vmcore.IsZero(b.page):
		kind = pageZero
	default:
		stored, flags := b.encoder.EncodePage(b.room, b.page)
		desc = kdumpfile.PageDesc{Offset: int64(len(b.data)), Size: uint32(len(stored)), Flags: flags}
		b.data = append(b.data, stored...)
	}
	b.kinds = append(b.kinds, kind)
	b.descs = append(b.descs, desc)
}

// put writes the data of a batch, then its descriptors, one run of equal kinds at a time.
func (r *recoder) put(b *batch) error {
	if _, err := r.out.WriteAt(b.data, r.pos); err != nil {
		return err
	}
	for i := range b.descs {
		b.descs[i].Offset += r.pos
	}
	r.pos += int64(len(b.data))
	for from := 0; from < len(b.kinds); {
		to := from + 1
		for to < len(b.kinds) && b.kinds[to] == b.kinds[from] {
			to++
		}
		e := mem.Between(b.extent.Start+mem.PFN(from), b.extent.Start+mem.PFN(to))
		if err := r.putRun(e, b.kinds[from], b.descs[from:to]); err != nil {
			return err
		}
		from = to
	}
	return nil
}

func (r *recoder) putRun(e mem.Extent, kind pageKind, descs []kdumpfile.PageDesc) error {
	switch kind {
	case pageZero:
		return r.w.PutZero(e)
	case pageLost:
		r.lost += e.Count
		return nil
	}
	return r.w.PutPages(e, descs)
}
