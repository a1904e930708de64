package remotefs

// Length and number of the cache's blocks. A block is read in one packet.
const (
	blockLen  = 32 << 10
	maxBlocks = 64
)

// blockCache is what is known of a file's contents: some blocks, and where there are only zeros, because the file has grown
// there and nothing was written since.
type blockCache struct {
	blocks map[int64][]byte // by number; full ones only

	sized        bool     // size is known
	size         int64    // of the file after all writes in flight
	zeros, grown int64    // blocks [zeros, grown) were zeros when the file grew
	written      []uint64 // a bit for each of them that was written since
}

func newBlockCache(empty bool) blockCache {
	return blockCache{blocks: map[int64][]byte{}, sized: empty}
}

// block returns a block, nil if it is unknown.
func (c *blockCache) block(n int64) []byte {
	b := c.blocks[n]
	if b == nil && c.zero(n) {
		b = make([]byte, blockLen)
		c.add(n, b)
	}
	return b
}

// add adds a block. It removes another one if the cache is full.
func (c *blockCache) add(n int64, b []byte) {
	if len(c.blocks) >= maxBlocks {
		for old := range c.blocks { // any block: few are in use, and reading one again is cheap
			delete(c.blocks, old)
			break
		}
	}
	c.blocks[n] = b
}

// zero reports whether a block is known to be zeros.
func (c *blockCache) zero(n int64) bool {
	if n < c.zeros || n >= c.grown {
		return false
	}
	word, bit := (n-c.zeros)/64, (n-c.zeros)%64
	return word >= int64(len(c.written)) || c.written[word]>>bit&1 == 0
}

// write notes that p was written at off.
func (c *blockCache) write(p []byte, off int64) {
	c.size = max(c.size, off+int64(len(p)))
	for len(p) > 0 {
		n, at := off/blockLen, off%blockLen
		part := min(int64(len(p)), blockLen-at)
		if b := c.blocks[n]; b != nil {
			copy(b[at:], p[:part])
		}
		c.touch(n)
		p, off = p[part:], off+part
	}
}

func (c *blockCache) touch(n int64) {
	if n < c.zeros || n >= c.grown {
		return
	}
	word, bit := (n-c.zeros)/64, (n-c.zeros)%64
	for int64(len(c.written)) <= word {
		c.written = append(c.written, 0)
	}
	c.written[word] |= 1 << bit
}

// truncate notes a new size of the file.
func (c *blockCache) truncate(size int64) {
	clear(c.blocks)
	if c.sized && size > c.size {
		c.zeros, c.grown, c.written = (c.size+blockLen-1)/blockLen, size/blockLen, nil
	}
	c.sized, c.size, c.grown = true, size, min(c.grown, size/blockLen)
}

// reset empties the cache, after an error that leaves the contents of the file unknown.
func (c *blockCache) reset() {
	clear(c.blocks)
	c.sized, c.zeros, c.grown, c.written = false, 0, 0, nil
}
