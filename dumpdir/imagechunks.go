package dumpdir

import (
	"fmt"
	"hash/crc32"
	"slices"
	"sync"

	"github.com/corehaul/corehaul/chunk"
	"github.com/corehaul/corehaul/mem"
	"github.com/corehaul/corehaul/vmcore"
)

// Limits of what an Image keeps in memory.
const (
	// maxSamples bounds the index of chunks: a place in the journal for each chunk, or for every second, fourth...
	// chunk.
	maxSamples = 1 << 20
	// Chunks that were decoded last. Readers ask for pages in the order of page frames, and the pages of each tier
	// follow each other. So few chunks are in use at a time.
	maxCached      = 64
	maxCachedBytes = 64 << 20
)

// chunkFinder finds chunks by the offset of their data, and caches decoded ones.
type chunkFinder struct {
	jr *journal
	vm File

	mu      sync.Mutex
	s       *scanner
	samples []chunkSample
	recent  []*storedChunk // the last one used comes first
}

// chunkSample is the offsets of a chunk's data and record.
type chunkSample struct{ data, record int64 }

// newChunkFinder reads the whole journal once.
func newChunkFinder(jr *journal, vm File) (*chunkFinder, error) {
	f := &chunkFinder{jr: jr, vm: vm, s: newScanner(jr.r, jr.size)}
	every, left := 1, 0
	err := jr.records(f.s, jr.body, func(rec *record) (bool, error) {
		if rec.typ != recChunk {
			return true, nil
		}
		if left--; left > 0 {
			return true, nil
		}
		left = every
		c := cursor{b: rec.payload}
		_ = c.u64()
		f.samples = append(f.samples, chunkSample{data: c.offset(), record: rec.off})
		if len(f.samples) == maxSamples {
			for i := range maxSamples / 2 {
				f.samples[i] = f.samples[2*i]
			}
			f.samples, every = f.samples[:maxSamples/2], 2*every
		}
		return true, nil
	})
	return f, err
}

// get returns the decoded chunk whose data contains an offset of vmcore.
func (f *chunkFinder) get(off int64) (*storedChunk, error) {
	f.mu.Lock()
	c, err := f.find(off)
	f.mu.Unlock()
	if err != nil {
		return nil, err
	}
	c.once.Do(func() { c.load(f.vm, f.jr.plan.PageSize) })
	return c, nil
}

// find returns the chunk without decoding it. mu is held.
func (f *chunkFinder) find(off int64) (*storedChunk, error) {
	if i := slices.IndexFunc(f.recent, func(c *storedChunk) bool { return c.offset <= off && off < c.end() }); i >= 0 {
		c := f.recent[i]
		copy(f.recent[1:i+1], f.recent[:i])
		f.recent[0] = c
		return c, nil
	}
	at, ok := slices.BinarySearchFunc(f.samples, off, func(s chunkSample, off int64) int {
		if s.data <= off {
			return -1
		}
		return 1
	})
	if ok || at == 0 {
		return nil, journalDamage(-1, "no chunk has its data at offset %d of %s", off, VMCoreName)
	}
	c := &storedChunk{}
	found := false
	err := f.jr.records(f.s, f.samples[at-1].record, func(rec *record) (bool, error) {
		if rec.typ != recChunk {
			return true, nil
		}
		if err := c.decode(rec.payload, f.jr.plan); err != nil {
			return false, journalDamage(rec.off, "%v", err)
		}
		found = c.offset <= off && off < c.end()
		return !found && c.offset <= off, nil
	})
	if err == nil && !found {
		err = journalDamage(-1, "no chunk has its data at offset %d of %s", off, VMCoreName)
	}
	if err != nil {
		return nil, err
	}
	f.keep(c)
	return c, nil
}

// keep makes c the first of the recent chunks and drops others.
func (f *chunkFinder) keep(c *storedChunk) {
	f.recent = slices.Insert(f.recent, 0, c)
	sum := 0
	for i, r := range f.recent {
		if sum += len(r.pages) * f.jr.plan.PageSize; i > 0 && (i == maxCached || sum > maxCachedBytes) {
			clear(f.recent[i:])
			f.recent = f.recent[:i]
			return
		}
	}
}

// storedChunk is a chunk of a stored dump: its record and, after load, its pages and their damage.
type storedChunk struct {
	chunkRecord
	once sync.Once
	raw  []byte         // data pages, decoded, back to back
	bad  map[int]string // what is wrong with a data page, by number
}

// load reads and decodes all data pages. It compares the stored bytes of each with the CRC-32C in the journal, and
// all with the sender's checksum. If only that checksum is wrong, no page is known to be right.
func (c *storedChunk) load(vm File, pageSize int) {
	c.raw, c.bad = make([]byte, len(c.pages)*pageSize), map[int]string{}
	stored := make([]byte, c.bytes)
	n, _ := vm.ReadAt(stored, c.offset) // after an error, check reads page by page
	dec := NewPageDecoder(pageSize)
	for i, at := 0, int64(0); i < len(c.pages); i++ {
		page := stored[at : at+int64(c.pages[i].Size)]
		if what := c.check(vm, dec, i, page, at+int64(len(page)) <= int64(n), c.offset+at, c.raw[i*pageSize:(i+1)*pageSize]); what != "" {
			c.bad[i] = what
		}
		at += int64(len(page))
	}
	if sum := dec.sum.Sum64(); len(c.bad) == 0 && sum != c.rawSum {
		for i := range c.pages {
			c.bad[i] = fmt.Sprintf("xxh3 of the chunk's pages is %016x, the sender had %016x", sum, c.rawSum)
		}
	}
}

// check decodes page i into raw and returns its damage.
func (c *storedChunk) check(vm File, dec *PageDecoder, i int, stored []byte, read bool, off int64, raw []byte) string {
	if !read {
		if n, err := vm.ReadAt(stored, off); n < len(stored) {
			return fmt.Sprintf("stored page cannot be read: %v", err)
		}
	}
	if got := crc32.Checksum(stored, castagnoli); got != c.sums[i] {
		return crcText(got, c.sums[i])
	}
	page, err := dec.Page(c.pages[i], stored)
	if err != nil {
		return decodeText(err)
	}
	_, _ = dec.sum.Write(page) // a hash takes everything
	copy(raw, page)
	return ""
}

// number returns the index of the data page of a frame, or -1, and the offset of its stored bytes.
func (c *storedChunk) number(pfn mem.PFN) (i int, off int64) {
	for _, e := range c.extents {
		if e.Kind == chunk.Zero {
			continue
		}
		if pfn < e.Start || pfn >= e.End() {
			i += int(e.Count)
			continue
		}
		i += int(pfn - e.Start)
		off = c.offset
		for _, p := range c.pages[:i] {
			off += int64(p.Size)
		}
		return i, off
	}
	return -1, 0
}

// page copies the bytes of a data page that begin at in, or returns the page's damage.
func (c *storedChunk) page(p []byte, pfn mem.PFN, in, pageSize int) *Finding {
	i, off := c.number(pfn)
	if i < 0 {
		return &Finding{File: JournalName, Offset: -1, Where: "journal", PFN: &pfn, Text: "the page is in no chunk"}
	}
	if what := c.bad[i]; what != "" {
		seq := c.seq
		return &Finding{File: VMCoreName, Offset: off, Length: int64(c.pages[i].Size), Where: "page", PFN: &pfn, Chunk: &seq, Text: what}
	}
	copy(p, c.raw[i*pageSize+in:(i+1)*pageSize])
	return nil
}

// corrupt returns the error for a finding.
func (f *Finding) corrupt(addr mem.PhysAddr) error {
	text := f.Text
	if f.Chunk != nil {
		text = fmt.Sprintf("pfn %d, chunk %d: %s", *f.PFN, *f.Chunk, text)
	}
	return &vmcore.AddrError{Addr: addr, Err: vmcore.Corruptf(f.Where, f.Offset, "%s", text)}
}
