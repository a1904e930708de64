package dumpdir

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/corehaul/corehaul/mem"
	"github.com/corehaul/corehaul/vmcore"
	"github.com/corehaul/corehaul/vmcore/dumpfile"
)

// VerifyFile reads and decodes every page of a dump file outside of dump directories. path is any file that
// vmcore/dumpfile opens. Without a journal it cannot compare raw pages; see SumBeside.
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

// verifyImage is readImage for an open file that may be no dump.
func verifyImage(ctx context.Context, r io.ReaderAt, size int64, opts VerifyOptions, rep *Report) error {
	img, err := dumpfile.New(r, size)
	if err != nil {
		rep.add(Finding{File: VMCoreName, Offset: -1, Where: "file", Text: err.Error()}, 1)
		return nil
	}
	return readImage(ctx, img, opts, rep)
}

// readImage reads every page that the file of img holds. Pages that it should hold and does not make the dump
// partial. They are no damage.
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
	ir := imageReader{img: img, opts: opts, rep: rep, page: make([]byte, info.PageSize), max: info.MaxPFN}
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

// account adds what is missing in the file.
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
	max  mem.PFN
}

func (r *imageReader) read(pfn mem.PFN) {
	if err := r.img.ReadPage(r.page, pfn); err != nil {
		r.find(&pfn, err)
	} else {
		r.rep.Progress.Present++
	}
	if r.opts.Progress != nil && pfn%1024 == 0 {
		r.opts.Progress(int64(pfn)*int64(len(r.page)), int64(r.max)*int64(len(r.page))) //nolint:gosec // far below 1 << 63
	}
}

func (r *imageReader) find(pfn *mem.PFN, err error) {
	f := Finding{File: VMCoreName, Offset: -1, Where: "page", PFN: pfn, Text: err.Error()}
	if fe, ok := errors.AsType[*vmcore.FormatError](err); ok {
		f.Offset, f.Field = fe.Off, fe.Struct
	}
	r.rep.add(f, r.opts.MaxFindings)
}
