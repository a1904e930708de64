package protocol

import (
	"bytes"
	"io"
	"testing"

	"github.com/corehaul/corehaul/chunk"
)

// benchChunk is a full chunk of page records at half size.
func benchChunk() *Chunk {
	ch := &Chunk{Seq: 1, RawSum: 1, Encoding: EncodingSnappyPage, Extents: []chunk.Extent{extent(1<<20, 256, chunk.Data)}}
	for range 256 {
		ch.Sizes = append(ch.Sizes, 2048)
	}
	ch.Payload = bytes.Repeat([]byte{0x55}, 256*2048)
	return ch
}

func BenchmarkChunkEncode(b *testing.B) {
	c, ch := NewConn(stream(nil), Sender), benchChunk()
	c.order.params = hugeParams
	b.SetBytes(int64(len(ch.Payload)))
	b.ReportAllocs()
	for b.Loop() {
		head, tail, err := c.encode(ch)
		if err != nil {
			b.Fatal(err)
		}
		if err := c.writeFrame(head, tail); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkChunkDecode(b *testing.B) {
	frame := encodeFrame(b, benchChunk(), hugeParams)
	src := &endless{frame: frame}
	c := NewConn(struct {
		io.Reader
		io.Writer
	}{src, io.Discard}, Receiver)
	c.order.params, c.order.chunks, c.order.agreed = hugeParams, 10, Encodings{EncodingSnappyPage}
	c.order.seen[TypeHello], c.order.seen[TypePlanOK] = true, true
	b.SetBytes(int64(len(frame)))
	b.ReportAllocs()
	for b.Loop() {
		m, err := c.Read()
		if err != nil {
			b.Fatal(err)
		}
		c.Release(m.(*Chunk))
	}
}

// endless repeats a frame for ever.
type endless struct {
	frame []byte
	off   int
}

func (e *endless) Read(p []byte) (int, error) {
	n := copy(p, e.frame[e.off:])
	e.off = (e.off + n) % len(e.frame)
	return n, nil
}

func BenchmarkRunEncode(b *testing.B) {
	b.ReportAllocs()
	e := NewRunEncoder(hugeParams, func([]byte) error { return nil })
	next := uint64(0)
	for b.Loop() {
		if err := e.Add(run(next, 3, 0)); err != nil {
			b.Fatal(err)
		}
		next += 5
	}
}
