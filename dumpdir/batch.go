package dumpdir

// batch is a group of chunks on their way to the journal: record payloads back to
// back, and what they add to the counts.
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

// full reports whether one more chunk could make the batch longer than may be
// appended between two fsyncs.
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

// merge adds b to c.
func (c *counts) merge(b *counts) {
	c.chunks += b.chunks
	c.pages += b.pages
	c.zero += b.zero
	c.bytes += b.bytes
	for k, n := range b.codecs {
		c.codecs[k] += n
	}
}
