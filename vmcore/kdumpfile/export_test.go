package kdumpfile

import (
	"sync"

	"github.com/klauspost/compress/s2"

	"github.com/corehaul/corehaul/mem"
)

// Layout returns the places of the file. Data is not told by the file and is the
// end of the descriptors here.
func (k *Reader) Layout() Layout { return k.h.l }

// PageCount returns the number of pages that the file has descriptors for.
func (k *Reader) PageCount() uint64 { return k.h.l.Planned }

// Has reports whether the file has a descriptor for frame pfn.
func (k *Reader) Has(pfn mem.PFN) (bool, error) {
	if pfn < k.h.start || pfn >= k.h.end {
		return false, nil
	}
	b, err := k.bits.get(k, int64(pfn/bitBlockPFN))
	return err == nil && b.has(uint64(pfn%bitBlockPFN)), err
}

// Planned returns the number of pages that are to come in all.
func (w *Writer) Planned() uint64 { return w.l.Planned }

// Present returns the number of pages that have a descriptor.
func (w *Writer) Present() uint64 { return w.present }

var encoders sync.Map // Codec -> *sync.Pool of *Encoder

// EncodePage is Encoder.EncodePage with the fastest level, safe for concurrent
// use. A codec that cannot be written (LZO) stores raw. The result shares memory with page or nothing.
func EncodePage(page []byte, c Codec) (stored []byte, flags uint32) {
	p, _ := encoders.LoadOrStore(c, new(sync.Pool))
	pool := p.(*sync.Pool)
	e, _ := pool.Get().(*Encoder)
	if e == nil {
		var err error
		if e, err = NewEncoder(c, 0); err != nil {
			return page, uint32(Raw)
		}
	}
	defer pool.Put(e)
	return e.EncodePage(make([]byte, s2.MaxEncodedLen(len(page))), page) // the encoder's own room goes back to the pool
}
