package dumpdir

import (
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"io"

	"github.com/corehaul/corehaul/chunk"
	"github.com/corehaul/corehaul/mem"
	"github.com/corehaul/corehaul/vmcore"
	"github.com/corehaul/corehaul/vmcore/dumpfile"
)

// data checks every stored page, and that there are zeros where no page is.
func (v *verifier) data() error {
	dec := NewPageDecoder(v.jr.plan.PageSize)
	page := make([]byte, v.jr.plan.PageSize)
	return v.jr.chunks(func(r *chunkRecord) error {
		gap := func() error { return v.zeros(r.offset, "gap between chunks") }
		if len(v.jr.broken) > 0 { // a chunk may lie there whose record is broken
			gap = func() error { return v.skip(r.offset) }
		}
		if err := gap(); err != nil {
			return err
		}
		return v.chunkData(r, dec, page)
	})
}

// chunkData compares the pages of one chunk with its record: each stored page with its CRC-32C, and all,
// decoded, with the checksum that the sender computed.
func (v *verifier) chunkData(r *chunkRecord, dec *PageDecoder, buf []byte) error {
	dec.sum.Reset()
	damaged, i, seq := false, 0, r.seq
	for _, e := range r.extents {
		if e.Kind == chunk.Zero {
			continue
		}
		for pfn := e.Start; pfn < e.End(); pfn++ {
			at, stored := v.pos, buf[:r.pages[i].Size]
			if err := v.next(stored); err != nil {
				return err
			}
			if what := checkStored(dec, r.pages[i], r.sums[i], stored); what != "" {
				damaged = true
				v.find(Finding{File: VMCoreName, Offset: at, Length: int64(len(stored)), Where: "page", PFN: &pfn, Chunk: &seq, Text: what})
			}
			i++
		}
	}
	if sum := dec.sum.Sum64(); !damaged && sum != r.rawSum {
		v.find(Finding{
			File: VMCoreName, Offset: r.offset, Length: r.bytes, Where: "chunk", Chunk: &seq,
			Text: fmt.Sprintf("xxh3 of its pages is %016x, the sender had %016x", sum, r.rawSum),
		})
	}
	return nil
}

// checkStored says what is wrong with a stored page, and adds the decoded one to the sum of the chunk.
func checkStored(dec *PageDecoder, rec PageRecord, sum uint32, stored []byte) string {
	if got := crc32.Checksum(stored, castagnoli); got != sum {
		return crcText(got, sum)
	}
	raw, err := dec.Page(rec, stored)
	if err != nil {
		return decodeText(err)
	}
	_, _ = dec.sum.Write(raw) // a hash takes everything
	return ""
}

func crcText(got, want uint32) string {
	return fmt.Sprintf("CRC-32C of the stored page is %08x, has to be %08x", got, want)
}

func decodeText(err error) string { return fmt.Sprintf("page does not decode: %v", err) }

// VerifyFile verifies a dump file without a directory around it: every page is read and
// decoded. path is any file that vmcore/dumpfile opens. Without a journal there is nothing to compare
// raw pages with; see SumBeside.
func VerifyFile(ctx context.Context, path string, opts VerifyOptions) (*Report, error) {
	img, err := dumpfile.Open(path)
	if err != nil {
		return nil, err
	}
	rep := newImageReport()
	err = readImage(ctx, img, opts, rep)
	return rep, errors.Join(err, img.Close())
}

func newImageReport() *Report {
	return &Report{State: StateComplete, Findings: []Finding{}, Compared: ComparedNothing}
}

// verifyImage is readImage for an open file that may not even be a dump.
func verifyImage(ctx context.Context, r io.ReaderAt, size int64, opts VerifyOptions, rep *Report) error {
	img, err := dumpfile.New(r, size)
	if err != nil {
		rep.add(Finding{File: VMCoreName, Offset: -1, Where: "file", Text: err.Error()}, 1)
		return nil
	}
	return readImage(ctx, img, opts, rep)
}

// readImage reads every page that the file of img holds. Pages that it should hold and does not make the
// dump partial; they are no damage.
func readImage(ctx context.Context, img vmcore.Image, opts VerifyOptions, rep *Report) error {
	if opts.MaxFindings == 0 {
		opts.MaxFindings = defaultFindings
	}
	info := img.Info()
	rep.Warnings = append(rep.Warnings, info.Warnings...)
	account, err := vmcore.AccountOf(ctx, img)
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case err == nil:
		rep.account(account)
	}
	ir := imageReader{img: img, opts: opts, rep: rep, page: make([]byte, info.PageSize), max: int64(info.MaxPFN)} //nolint:gosec // at most 1 << 52
	if err != nil {
		ir.find(nil, err)
		return nil
	}
	for e, err := range vmcore.HeldPages(img) {
		if err != nil {
			ir.find(nil, err)
			return nil
		}
		for pfn := e.Start; pfn < e.End(); pfn++ {
			if pfn%1024 == 0 && ctx.Err() != nil {
				return ctx.Err()
			}
			ir.read(pfn)
		}
	}
	return nil
}

// account tells what the file holds of what it should hold.
func (r *Report) account(a *vmcore.Account) {
	r.Progress.Planned = a.Planned
	if a.Complete() {
		return
	}
	r.State = StatePartial
	if n := a.Missing(); n > 0 {
		r.Warnings = append(r.Warnings, fmt.Sprintf("%d of %d pages are not in the file", n, a.Planned))
	}
}

type imageReader struct {
	img  vmcore.Image
	opts VerifyOptions
	rep  *Report
	page []byte
	max  int64
}

func (r *imageReader) read(pfn mem.PFN) {
	if err := r.img.ReadPage(r.page, pfn); err != nil {
		r.find(&pfn, err)
	} else {
		r.rep.Progress.Present++
	}
	if r.opts.Progress != nil && pfn%1024 == 0 {
		r.opts.Progress(int64(pfn)*int64(len(r.page)), r.max*int64(len(r.page))) //nolint:gosec // far below 1 << 63
	}
}

func (r *imageReader) find(pfn *mem.PFN, err error) {
	f := Finding{File: VMCoreName, Offset: -1, Where: "page", PFN: pfn, Text: err.Error()}
	if fe, ok := errors.AsType[*vmcore.FormatError](err); ok {
		f.Offset, f.Field = fe.Off, fe.Struct
	}
	r.rep.add(f, r.opts.MaxFindings)
}
