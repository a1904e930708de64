package kdumpclients

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"sync/atomic"

	"github.com/corehaul/corehaul/vmcore/elfcore"
	"github.com/corehaul/corehaul/vmcore/flattened"
	"github.com/corehaul/corehaul/vmcore/packed"
)

// sink consumes the bytes of a stream in order.
type sink interface {
	io.Writer
	// finish is called once, at the end. It returns why the stream is incomplete.
	finish() error
	// image returns the dump in the stream, nil if there is none or none is known yet.
	image() *image
	// undecided reports whether it is still unknown if the stream has a dump.
	undecided() bool
}

// flat is a flattened stream.
type flat struct {
	img *image
	asm *flattened.Assembler
}

func newFlat(img *image) *flat {
	asm := flattened.NewAssembler(img, flattened.Limits{FileSize: maxImage, Pieces: maxPieces})
	img.have = asm.Coverage()
	return &flat{img: img, asm: asm}
}

func (f *flat) Write(p []byte) (int, error) {
	n, err := f.asm.Write(p)
	f.img.state.Marked = f.asm.Done()
	return n, errors.Join(err, f.img.checkpoint())
}

func (f *flat) finish() error   { return f.asm.Close() }
func (f *flat) image() *image   { return f.img }
func (f *flat) undecided() bool { return false }

// unpacker is a compressed stream. One goroutine unpacks it and writes the contents.
type unpacker struct {
	form form
	open func(wrap ...form) (*image, error) // makes the image once the stream is known to have one
	stop func()                             // releases the decoder
	w    *io.PipeWriter
	done chan struct{} // closed when the goroutine has ended

	found atomic.Pointer[image]
	plain atomic.Bool // the stream has no dump
	err   error       // why it is incomplete; set once done is closed
}

// errNoDump ends the unpacking of a stream without a dump.
var errNoDump = errors.New("no dump inside")

func newUnpacker(f form, open func(wrap ...form) (*image, error), stop func()) *unpacker {
	r, w := io.Pipe()
	p := &unpacker{form: f, open: open, stop: stop, w: w, done: make(chan struct{})}
	go p.run(r)
	return p
}

func (p *unpacker) run(r *io.PipeReader) {
	defer close(p.done)
	defer p.stop()
	err := p.unpack(r)
	p.err = err
	if p.found.Load() == nil {
		p.plain.Store(true)
		err = errNoDump
	}
	if err == nil {
		_, err = io.Copy(io.Discard, io.LimitReader(r, maxTrailing)) // padding behind the end
	}
	if err == nil {
		err = fmt.Errorf("more than %d bytes follow the end of the %s stream", maxTrailing, p.form)
	}
	_ = r.CloseWithError(err) // always returns nil
}

const maxTrailing = 1 << 20

// unpack writes the dump in the stream. It recovers from panics, because a bug must not cost the dumps of all hosts.
func (p *unpacker) unpack(r io.Reader) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("internal error: %v", p)
		}
	}()
	dec, err := packed.NewReader(packed.Form(p.form), r, maxDict)
	if err != nil {
		return fmt.Errorf("%s stream: %w", p.form, err)
	}
	head, inner, err := readForm(dec)
	if wide, ok := errors.AsType[*packed.DictError](err); ok {
		err = fmt.Errorf("%w; compress with %s", err, modest[wide.Form])
	}
	if err != nil && len(head) < magicLen {
		return fmt.Errorf("%s stream: %w", p.form, err)
	}
	if err != nil {
		dec = failing{err} // the bytes before the error may be a dump
	}
	switch inner {
	case formFlat:
		img, err := p.open(p.form, inner)
		if err != nil {
			return err
		}
		f := newFlat(img)
		return p.copy(img, f, head, dec, f.finish)
	case formKdump, formELF:
		img, err := p.open(p.form)
		if err != nil {
			return err
		}
		return p.copy(img, &appender{img: img}, head, dec, func() error { return nil })
	}
	return errNoDump
}

// maxDict bounds the memory of a decompressor, in bytes. modest has commands that need less.
const maxDict = 16 << 20

var modest = map[packed.Form]string{packed.XZ: "xz -6", packed.Zstd: "zstd -19"}

// readForm reads as much of r as sniff needs. With an error, it returns the bytes before the error.
func readForm(r io.Reader) (head []byte, f form, err error) {
	end := false
	for want := magicLen; ; want *= 2 {
		for len(head) < want && err == nil && !end {
			var n int
			head = slices.Grow(head, want-len(head))
			n, err = r.Read(head[len(head):want])
			head = head[:len(head)+n]
			if errors.Is(err, io.EOF) {
				end, err = true, nil
			}
		}
		if f = sniff(head); f != formELF {
			return head, f, err
		}
		switch elfcore.KindOf(head, end || err != nil) {
		case elfcore.KindKernel:
			return head, formELF, err
		case elfcore.KindOther:
			return head, formOtherELF, err
		}
	}
}

// failing is a reader with an error.
type failing struct{ err error }

func (f failing) Read([]byte) (int, error) { return 0, f.err }

// copy writes head and the rest of dec to w. It calls finish even if the compressed stream broke off, because a dump may be
// complete without the end of that stream.
func (p *unpacker) copy(img *image, w io.Writer, head []byte, dec io.Reader, finish func() error) error {
	p.found.Store(img)
	if _, err := w.Write(head); err != nil {
		return err
	}
	if _, err := io.CopyBuffer(w, struct{ io.Reader }{dec}, make([]byte, 256<<10)); err != nil {
		return fmt.Errorf("%s stream: %w", p.form, err)
	}
	return finish()
}

// Write implements io.Writer. It returns the error of the goroutine once that has ended.
func (p *unpacker) Write(b []byte) (int, error) { return p.w.Write(b) }

func (p *unpacker) finish() error {
	_ = p.w.Close() // always returns nil
	<-p.done
	return p.err
}

func (p *unpacker) image() *image   { return p.found.Load() }
func (p *unpacker) undecided() bool { return p.found.Load() == nil && !p.plain.Load() }

// appender writes the bytes of an unpacked dump in order.
type appender struct {
	img *image
	off int64
}

func (a *appender) Write(p []byte) (int, error) {
	n, err := a.img.direct(p, a.off)
	a.off += int64(n)
	return n, errors.Join(err, a.img.checkpoint())
}
