package vmcore

import (
	"context"
	"fmt"
	"iter"
	"slices"
	"strings"

	"github.com/corehaul/corehaul/mem"
)

// Holder is an optional interface of an Image that knows, without reading pages, which pages its file holds.
type Holder interface {
	// HeldPages yields the page frames of Pages whose bytes are completely in the file, as runs. It leaves out a
	// frame whose descriptor or data was never written or lies beyond the end of the file. In all else it is like
	// Pages. It reads no page data and needs bounded memory.
	HeldPages() iter.Seq2[mem.Extent, error]
}

// An Account says which part of its contents a dump file holds. The state of every dump file comes from it.
type Account struct {
	Planned uint64 // pages of its bitmap or program headers
	Held    uint64 // pages among them whose bytes are all in the file
	// Excluded pages are RAM that was excluded on purpose when the dump was made.
	Excluded uint64
	// Lacks says what else is missing, one line each: see Info.Lacks.
	Lacks []string
}

// AccountOf returns the account of an open dump file. It reads descriptors in order, and no page data. The error is
// the medium's or that of ctx.
func AccountOf(ctx context.Context, img Image) (*Account, error) {
	info := img.Info()
	a := &Account{Lacks: slices.Clone(info.Lacks)}
	if info.Incomplete && len(a.Lacks) == 0 {
		a.Lacks = append(a.Lacks, "the file says that it is incomplete")
	}
	var err error
	if a.Planned, err = countPages(ctx, img.Pages()); err != nil {
		return nil, err
	}
	if a.Held, err = countPages(ctx, HeldPages(img)); err != nil {
		return nil, err
	}
	ram, end := uint64(0), mem.PFN(0)
	for _, r := range img.RAM() {
		e := r.Pages(info.PageShift())
		if start := max(e.Start, end); start < e.End() {
			ram, end = ram+uint64(e.End()-start), e.End()
		}
	}
	a.Excluded = ram - min(ram, a.Planned)
	return a, nil
}

// HeldPages yields the page frames that the file of img holds, or all of Pages if img is no Holder.
func HeldPages(img Image) iter.Seq2[mem.Extent, error] {
	for {
		if h, ok := img.(Holder); ok {
			return h.HeldPages()
		}
		w, ok := img.(interface{ Unwrap() Image })
		if !ok {
			return img.Pages()
		}
		img = w.Unwrap()
	}
}

func countPages(ctx context.Context, pages iter.Seq2[mem.Extent, error]) (n uint64, err error) {
	for e, err := range pages {
		if err == nil {
			err = ctx.Err()
		}
		if err != nil {
			return 0, err
		}
		n += e.Count
	}
	return n, nil
}

// Missing returns the number of pages that the file should hold and does not, without those of Lacks.
func (a *Account) Missing() uint64 { return a.Planned - min(a.Held, a.Planned) }

// Complete reports whether nothing is missing.
func (a *Account) Complete() bool { return a.Missing() == 0 && len(a.Lacks) == 0 }

// Reason says why the file is not complete, in one line; empty if it is complete.
func (a *Account) Reason() string {
	list := a.Lacks
	if n := a.Missing(); n > 0 {
		list = append(slices.Clone(list), fmt.Sprintf("%d of %d pages are not in the file", n, a.Planned))
	}
	return strings.Join(list, "; ")
}
