package intake

import (
	"errors"
	"fmt"

	"github.com/klauspost/compress/zstd"
	"github.com/pierrec/lz4/v4"

	"github.com/corehaul/corehaul/dumpdir"
	"github.com/corehaul/corehaul/protocol"
	"github.com/corehaul/corehaul/vmcore/kdumpfile"
)

// encodings are those that a converter accepts, in order of preference: it stores page records unchanged, and has to
// compress blocks again.
var encodings = protocol.Encodings{
	protocol.EncodingSnappyPage, protocol.EncodingZstdPage, protocol.EncodingLZ4Block, protocol.EncodingZstdBlock,
}

// errBlockLength says that a block decodes to another length than its pages have.
var errBlockLength = errors.New("wrong length")

// converter turns a chunk of the wire into the chunk that a dump directory stores. It checks that the pages decode to
// what the sender read. It owns its buffers: one converter serves one goroutine. A result is valid until the next
// call, and as long as the converted chunk.
type converter struct {
	pageSize int
	check    *dumpdir.PageDecoder
	encoder  *kdumpfile.Encoder
	zstd     *zstd.Decoder

	raw   []byte // pages of a decoded block
	out   []byte // page records made here
	page  []byte // one page record, before it goes to out
	chunk dumpdir.Chunk
}

// ConverterBytes is about the memory of a converter: a chunk of raw pages, and one of page records that may be
// incompressible.
const ConverterBytes = 2*protocol.ChunkBytes + 512<<10

// newConverter returns a converter for pages of pageSize bytes. It compresses with codec what does not come as page
// records.
func newConverter(pageSize int, codec kdumpfile.Codec) (*converter, error) {
	encoder, err := kdumpfile.NewEncoder(codec, 1)
	if err != nil {
		return nil, err
	}
	decoder, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true),
		zstd.WithDecoderMaxWindow(8*protocol.ChunkBytes), zstd.WithDecodeAllCapLimit(true))
	if err != nil {
		return nil, err
	}
	return &converter{
		pageSize: pageSize, encoder: encoder, zstd: decoder,
		check: dumpdir.NewPageDecoder(pageSize), page: make([]byte, 0, 2*pageSize),
	}, nil
}

// Close ends the converter.
func (c *converter) Close() { c.zstd.Close() }

// Convert compares the checksum of in and returns the chunk to be stored.
func (c *converter) Convert(in *protocol.Chunk) (*dumpdir.Chunk, error) {
	c.begin(in)
	if in.DataPages() == 0 {
		return &c.chunk, nil
	}
	if in.Encoding.Pages() {
		return c.pageRecords(in)
	}
	return c.rawPages(in)
}

// begin sets the fields that do not depend on the encoding.
func (c *converter) begin(in *protocol.Chunk) {
	c.chunk.Seq, c.chunk.RawSum, c.chunk.Data = in.Seq, in.RawSum, nil
	c.chunk.Extents, c.chunk.Pages = in.Extents, c.chunk.Pages[:0]
}

// pageRecords keeps the records unchanged. It decodes them once, page by page, for the checksum.
func (c *converter) pageRecords(in *protocol.Chunk) (*dumpdir.Chunk, error) {
	codec := dumpdir.PageSnappy
	if in.Encoding == protocol.EncodingZstdPage {
		codec = dumpdir.PageZstd
	}
	for _, size := range in.Sizes {
		record := dumpdir.PageRecord{Size: size, Flags: codec}
		if int64(size) == int64(c.pageSize) {
			record.Flags = dumpdir.PageRaw
		}
		c.chunk.Pages = append(c.chunk.Pages, record)
	}
	c.chunk.Data = in.Payload
	sum, err := c.check.Sum(c.chunk.Pages, c.chunk.Data)
	if err != nil {
		return nil, protocol.Errorf(protocol.CodeBadEncoding, "chunk %d: %w", in.Seq, err)
	}
	if err := compareSums(in, sum); err != nil {
		return nil, err
	}
	return &c.chunk, nil
}

// rawPages decodes a block, or takes raw pages, and makes page records.
func (c *converter) rawPages(in *protocol.Chunk) (*dumpdir.Chunk, error) {
	raw, err := c.decodeBlock(in)
	if err != nil {
		return nil, protocol.Errorf(protocol.CodeBadEncoding, "chunk %d: %s: %w", in.Seq, in.Encoding, err)
	}
	if err := compareSums(in, protocol.RawSum(raw)); err != nil {
		return nil, err
	}
	c.out = c.out[:0]
	for ; len(raw) > 0; raw = raw[c.pageSize:] {
		stored, flags := c.encoder.EncodePage(c.page, raw[:c.pageSize])
		c.out = append(c.out, stored...)
		size := uint32(len(stored))
		c.chunk.Pages = append(c.chunk.Pages, dumpdir.PageRecord{Size: size, Flags: flags})
	}
	c.chunk.Data = c.out
	return &c.chunk, nil
}

// decodeBlock returns the raw pages of a chunk without page records. No decoder writes beyond the length of the
// chunk's extents.
func (c *converter) decodeBlock(in *protocol.Chunk) ([]byte, error) {
	want := in.DataPages() * c.pageSize
	if in.Encoding == protocol.EncodingNone {
		if len(in.Payload) != want {
			return nil, errBlockLength
		}
		return in.Payload, nil
	}
	if cap(c.raw) < want {
		c.raw = make([]byte, max(want, protocol.ChunkBytes))
	}
	dst := c.raw[:want:want]
	n := 0
	var err error
	switch in.Encoding {
	case protocol.EncodingLZ4Block:
		n, err = lz4.UncompressBlock(in.Payload, dst)
	case protocol.EncodingZstdBlock:
		dst, err = c.zstd.DecodeAll(in.Payload, dst[:0])
		n = len(dst)
	default:
		err = errors.ErrUnsupported
	}
	if err == nil && n != want {
		err = fmt.Errorf("%w: %d bytes for %d", errBlockLength, n, want)
	}
	if err != nil {
		return nil, err
	}
	return dst[:want], nil
}

func compareSums(in *protocol.Chunk, sum uint64) error {
	if sum == in.RawSum {
		return nil
	}
	return protocol.Errorf(protocol.CodeBadRawSum, "chunk %d: pages have checksum %016x, the sender read %016x", in.Seq, sum, in.RawSum)
}
