package sender

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"sync"

	"github.com/corehaul/corehaul/kernel"
	"github.com/corehaul/corehaul/kernel/pages"
	"github.com/corehaul/corehaul/kernel/printk"
	"github.com/corehaul/corehaul/machine"
	"github.com/corehaul/corehaul/mem"
	"github.com/corehaul/corehaul/protocol"
	"github.com/corehaul/corehaul/uts"
	"github.com/corehaul/corehaul/vmcore"
)

// A Source is a dump to be sent: an open dump file, and what is known of the kernel in it.
type Source struct {
	image    *countingImage
	info     *vmcore.Info
	kernel   *kernel.Kernel // nil for an unknown kernel
	pages    pageWalker     // nil if pages cannot be classified
	warnings []string
	account  *vmcore.Account
	logPages func() []mem.Extent  // see findLogPages
	log      *printk.TitleScanner // has seen the whole log; nil before WriteLog
}

// pageWalker is the part of pages.Classifier that a Source uses.
type pageWalker interface {
	Walk(ctx context.Context, level pages.DumpLevel, yield func(pages.Run) error) error
}

// Open opens the dump at path: a file of any format that package dumpfile knows, such as /proc/vmcore, or a stored dump,
// by its directory or a file in it.
func Open(path string) (*Source, error) {
	image, err := openImage(path)
	if err != nil {
		return nil, err
	}
	s, err := NewSource(image)
	if err != nil {
		return nil, errors.Join(err, image.Close())
	}
	return s, nil
}

// NewSource makes a Source of an open dump. Unless NewSource fails, Close of the Source closes the dump. It fails only for dumps
// that no receiver could store, and for files whose page descriptors cannot be read.
func NewSource(image vmcore.Image) (*Source, error) {
	file := &countingImage{Image: image}
	s := &Source{image: file, info: image.Info()}
	s.logPages = sync.OnceValue(func() []mem.Extent { return findLogPages(file) })
	if s.info.PageSize < protocol.MinPageSize || s.info.PageSize > protocol.MaxPageSize ||
		!vmcore.ValidPageSize(s.info.PageSize) {
		return nil, fmt.Errorf("page size %d: %w", s.info.PageSize, errors.ErrUnsupported)
	}
	if s.info.MaxPFN == 0 || s.info.MaxPFN > protocol.MaxPFN {
		return nil, fmt.Errorf("max_mapnr %d is not between 1 and %d: %w", s.info.MaxPFN, uint64(protocol.MaxPFN), errors.ErrUnsupported)
	}
	s.warnings = append(s.warnings, s.info.Warnings...)
	var err error
	if s.account, err = vmcore.AccountOf(context.Background(), image); err != nil {
		return nil, err
	}
	if !s.account.Complete() {
		s.warn("the dump file is itself incomplete: %s", s.account.Reason())
	}
	s.understand()
	return s, nil
}

// understand finds the kernel and its page classifier, if possible. A panic of their code counts as an unknown kernel,
// because a bug there must not cost the dump.
func (s *Source) understand() {
	var k *kernel.Kernel
	err := catchPanic(func() (err error) {
		k, err = machine.Kernel(s.image, s.info)
		return err
	})()
	if err != nil {
		s.warn("the kernel cannot be understood: %v; all pages are kept, and there is no log", err)
		return
	}
	s.kernel = k
	s.warnings = append(s.warnings, k.Warnings()...)
	var c *pages.Classifier
	err = catchPanic(func() (err error) {
		c, err = pages.New(k, s.image.RAM())
		return err
	})()
	if err != nil {
		s.warn("cannot tell the kinds of pages apart: %v; all pages are kept", err)
		return
	}
	s.pages = c
	s.warnings = append(s.warnings, c.Warnings()...)
}

// Close closes the dump file.
func (s *Source) Close() error { return s.image.Close() }

// Info returns what the dump file says of itself.
func (s *Source) Info() *vmcore.Info { return s.info }

// Warnings returns the warnings so far, one line each.
func (s *Source) Warnings() []string { return s.warnings }

func (s *Source) warn(format string, args ...any) {
	s.warnings = append(s.warnings, fmt.Sprintf(format, args...))
}

// WriteLog writes the kernel log as text, until ctx is done. It shortens the log to protocol.MaxLogBytes, as
// printk.Shortener says. left is how many bytes were left out.
func (s *Source) WriteLog(ctx context.Context, w io.Writer) (left uint64, err error) {
	if s.kernel == nil {
		return 0, errors.New("the kernel cannot be understood")
	}
	if s.log == nil {
		whole := new(printk.TitleScanner)
		_ = s.dumpLog(ctx, whole) // an error occurs again below
		if ctx.Err() != nil {
			return 0, context.Cause(ctx)
		}
		s.log = whole
	}
	short := printk.NewShortener(w, s.log, protocol.MaxLogBytes)
	if err = s.dumpLog(ctx, short); err == nil {
		err = short.Close()
	}
	return short.LeftOut(), err
}

func (s *Source) dumpLog(ctx context.Context, w io.Writer) error {
	return catchPanic(func() error { return printk.Dump(s.kernel, printk.Until(ctx, w)) })()
}

// Utsname returns the name that the kernel gives itself, as far as it is known.
func (s *Source) Utsname() uts.Name {
	return machine.Utsname(s.info, s.kernel)
}

// walk calls yield for all RAM of the dump in ascending order, by class if pages can be classified.
func (s *Source) walk(ctx context.Context, level pages.DumpLevel, yield func(pages.Run) error) error {
	if s.pages != nil {
		return s.pages.Walk(ctx, level, yield)
	}
	return s.walkAll(ctx, yield)
}

// walkAll is walk for an unknown kernel: it yields every page as pages.Kernel.
func (s *Source) walkAll(ctx context.Context, yield func(pages.Run) error) error {
	shift := s.info.PageShift()
	next := mem.PFN(0)
	for _, r := range s.image.RAM() {
		if err := ctx.Err(); err != nil {
			return err
		}
		// Ranges may share a page; it counts once.
		e := r.Pages(shift)
		if end := e.End(); e.Start < next {
			e.Start = min(next, end)
			e.Count = uint64(end - e.Start)
		}
		if e.Count == 0 {
			continue
		}
		next = e.End()
		if err := yield(pages.Run{Extent: e, Class: pages.Kernel}); err != nil {
			return err
		}
	}
	return nil
}

// heldRuns reduces the runs of a walk to the pages that the dump file has.
type heldRuns struct {
	next func() (mem.Extent, error, bool)
	stop func()
	cur  mem.Extent
	err  error
}

func newHeldRuns(image vmcore.Image) *heldRuns {
	next, stop := iter.Pull2(image.Pages())
	return &heldRuns{next: next, stop: stop}
}

// cut calls yield for the parts of e that are in the dump file. Extents must ascend from call to call.
func (p *heldRuns) cut(e mem.Extent, yield func(mem.Extent) error) error {
	for e.Count > 0 && p.err == nil {
		if p.cur.Count == 0 || p.cur.End() <= e.Start {
			if !p.advance() {
				break
			}
			continue
		}
		here := e.Intersect(p.cur)
		if here.Count == 0 {
			return nil
		}
		if err := yield(here); err != nil {
			return err
		}
		_, e = e.SplitAt(here.End())
	}
	return p.err
}

func (p *heldRuns) advance() bool {
	e, err, ok := p.next()
	if err != nil {
		p.err = fmt.Errorf("pages of the dump file: %w", err)
		return false
	}
	p.cur = e
	return ok
}

// RAMBytes returns the size of the machine's RAM according to the dump file.
func (s *Source) RAMBytes() uint64 {
	n := uint64(0)
	for _, r := range mergeRAM(s.image.RAM()) {
		n += r.Len()
	}
	return n
}
