package dumpdir

import "github.com/corehaul/corehaul/chunk"

// Commit makes all chunks durable that were put before the call. It returns the numbers of the chunks that became
// durable since the last Commit. Other goroutines may put chunks meanwhile.
func (w *Writer) Commit() ([]chunk.SeqRange, error) {
	c := w.c
	if err := c.enter(w); err != nil {
		return nil, err
	}
	defer c.commitMu.Unlock()
	if err := c.commit(); err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	fresh := c.fresh.ranges()
	c.fresh = newSeqSet()
	return fresh, nil
}

// commit is a group commit: it syncs the data of all chunks put so far, then appends and syncs their records.
// commitMu is held. mu is not held during the syncs.
func (c *core) commit() error {
	c.mu.Lock()
	b := c.batch
	if err := c.err; err != nil || len(b.seqs) == 0 {
		c.mu.Unlock()
		return err
	}
	c.batch, c.spare = c.spare, b
	vm := c.vm
	c.mu.Unlock()

	if err := c.j.reserve(int64(len(b.buf) + len(b.ends)*recordHeaderLen)); err != nil {
		return c.fail(err)
	}
	if err := vm.Sync(); err != nil {
		return c.fail(err)
	}
	b.each(func(payload []byte) { c.j.add(recChunk, payload) })
	if err := c.j.commit(); err != nil {
		return c.fail(err)
	}

	c.mu.Lock()
	defer c.mu.Unlock()
	for _, q := range b.seqs {
		c.have.add(q)
		c.fresh.add(q)
	}
	c.count.merge(&b.count)
	b.reset()
	return nil
}

// batch is a group of chunks on their way to the journal: record payloads back to back, and their counts.
type batch struct {
	buf   []byte
	ends  []int // of each payload in buf
	seqs  []uint64
	set   *seqSet
	count counts
}

// maxChunkRecord is the longest payload of a chunk record.
const maxChunkRecord = chunkFixedLen + MaxChunkExtents*chunkExtentLen + MaxChunkPages*chunkPageLen

func newBatch() *batch { return &batch{set: newSeqSet(), count: newCounts()} }

// full reports whether one more chunk could make the batch longer than the limit between two fsyncs.
func (b *batch) full() bool {
	return len(b.buf)+maxChunkRecord+(len(b.ends)+1)*recordHeaderLen > maxBatch
}

func (b *batch) add(c *Chunk, offset int64, s shape) {
	b.buf = appendChunkRecord(b.buf, c, offset)
	b.ends = append(b.ends, len(b.buf))
	b.seqs = append(b.seqs, c.Seq)
	b.set.add(c.Seq)
	b.count.add(s, c.Pages)
}

// each calls fn with each payload.
func (b *batch) each(fn func(payload []byte)) {
	start := 0
	for _, end := range b.ends {
		fn(b.buf[start:end])
		start = end
	}
}

func (b *batch) reset() {
	b.buf, b.ends, b.seqs = b.buf[:0], b.ends[:0], b.seqs[:0]
	b.set, b.count = newSeqSet(), newCounts()
}
