package sender

import (
	"bytes"
	"context"
	"debug/elf"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"iter"
	"math/rand/v2"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/klauspost/compress/snappy"
	"github.com/klauspost/compress/zstd"
	"github.com/pierrec/lz4/v4"

	"github.com/corehaul/corehaul/chunk"
	"github.com/corehaul/corehaul/internal/race"
	"github.com/corehaul/corehaul/kernel/pages"
	"github.com/corehaul/corehaul/mem"
	"github.com/corehaul/corehaul/protocol"
	"github.com/corehaul/corehaul/vmcore"
	"github.com/corehaul/corehaul/vmcore/vmcoreinfo"
)

const testPage = 4096

// fakeImage is a dump file that makes its pages up: every third one is zero, the
// others are half noise and half text, by their number.
type fakeImage struct {
	info vmcore.Info
	ram  []mem.Range
	bad  map[mem.PFN]bool // cannot be read
	unit uint64           // pages of a class in a row
}

func newFakeImage(t *testing.T, ram ...mem.Range) *fakeImage {
	t.Helper()
	vi, err := vmcoreinfo.Parse([]byte("OSRELEASE=6.1.0-test\nPAGESIZE=4096\nCRASHTIME=1700000000\n"))
	if err != nil {
		t.Fatal(err)
	}
	f := &fakeImage{ram: ram, bad: map[mem.PFN]bool{}, unit: 1000}
	f.info = vmcore.Info{
		Format: vmcore.FormatELF, Machine: elf.EM_X86_64, ByteOrder: binary.LittleEndian, PageSize: testPage,
		MaxPFN: ram[len(ram)-1].End.PFN(12), Notes: []byte("not really notes"), VMCOREINFO: vi,
	}
	return f
}

func (f *fakeImage) Info() *vmcore.Info { return &f.info }
func (f *fakeImage) RAM() []mem.Range   { return f.ram }
func (f *fakeImage) Close() error       { return nil }

func (f *fakeImage) Pages() iter.Seq2[mem.Extent, error] {
	return func(yield func(mem.Extent, error) bool) {
		for _, r := range f.ram {
			if !yield(r.Pages(f.info.PageShift()), nil) {
				return
			}
		}
	}
}

func (f *fakeImage) ReadPhys(p []byte, a mem.PhysAddr) error {
	return &vmcore.AddrError{Addr: a, Err: vmcore.ErrNotPresent}
}

func (f *fakeImage) ReadPage(p []byte, pfn mem.PFN) error {
	if f.bad[pfn] {
		return &vmcore.AddrError{Addr: pfn.Addr(12), Err: errors.New("input/output error")}
	}
	fillPage(p, pfn)
	return nil
}

// ReadPages fails for a run with a bad page in it, like a read over a mapping does.
func (f *fakeImage) ReadPages(p []byte, pfn mem.PFN) error {
	for ; len(p) > 0; p, pfn = p[testPage:], pfn+1 {
		if err := f.ReadPage(p[:testPage], pfn); err != nil {
			return err
		}
	}
	return nil
}

// noise does not compress; pages are cut out of it at different places.
var noise = func() []byte {
	b := make([]byte, 1<<20)
	r := rand.New(rand.NewPCG(1, 2))
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	return b
}()

var zeroPage = make([]byte, testPage)

var text = bytes.Repeat([]byte("all work and no play "), testPage)[:testPage]

func fakePage(pfn mem.PFN) []byte {
	page := make([]byte, testPage)
	fillPage(page, pfn)
	return page
}

func fillPage(page []byte, pfn mem.PFN) {
	if pfn%3 == 0 {
		clear(page)
		return
	}
	half := testPage
	if pfn%3 == 1 { // compressible
		half = testPage / 2
		copy(page[half:], text)
	}
	copy(page[:half], noise[(int(pfn)*977)%(len(noise)-testPage):])
	binary.LittleEndian.PutUint64(page, uint64(pfn))
}

// fakeWalker sorts pages into classes by their number; every so many pages another one.
type fakeWalker struct {
	image *fakeImage
	fail  error // after half of the RAM
}

func (w *fakeWalker) Walk(ctx context.Context, level pages.DumpLevel, yield func(pages.Run) error) error {
	classes := []pages.Class{pages.Kernel, pages.Memmap, pages.Cache, pages.Kernel, pages.User, pages.Free, pages.CachePrivate, pages.HWPoison}
	for i, r := range w.image.ram {
		if w.fail != nil && i > 0 {
			return w.fail
		}
		e := r.Pages(12)
		for e.Count > 0 {
			at, unit := uint64(e.Start), w.image.unit
			c := classes[at/unit%uint64(len(classes))]
			n := min(e.Count, unit-at%unit)
			if err := yield(pages.Run{Extent: mem.Extent{Start: e.Start, Count: n}, Class: c, Excluded: c.ExcludedAt(level)}); err != nil {
				return err
			}
			e = mem.Extent{Start: e.Start + mem.PFN(n), Count: e.Count - n}
		}
	}
	return ctx.Err()
}

// fewer is how many times fewer pages a dump has under the race detector, which looks at every byte of them.
var fewer = race.Stride(4)

// newFakeSource returns a dump of 20,000 pages with a hole in it; see fewer.
func newFakeSource(t *testing.T) (*Source, *fakeImage) {
	t.Helper()
	return fakeSourceOf(t, uint64(1000/fewer))
}

// fakeSourceOf returns a dump of twenty times so many pages with a hole in it.
func fakeSourceOf(t *testing.T, unit uint64) (*Source, *fakeImage) {
	t.Helper()
	end := func(n uint64) mem.PhysAddr { return mem.PFN(n).Addr(12) }
	img := newFakeImage(t, mem.Range{Start: 0x1000, End: end(9 * unit)}, mem.Range{Start: end(10 * unit), End: end(20*unit + unit/2)})
	img.unit = unit
	src, err := NewSource(img)
	if err != nil {
		t.Fatal(err)
	}
	src.pages = &fakeWalker{image: img}
	return src, img
}

// fakeReceiver is the other end of the wire. What it has survives its sessions.
type fakeReceiver struct {
	t testing.TB
	// Settings.
	window   uint64
	accept   protocol.Encodings
	collect  protocol.Collect
	refuse   []error // errors to answer the next HELLOs with
	waits    int
	cutAfter []int  // chunks after which the next sessions are cut
	cut      func() // called for each of them, if there is one
	neverAck bool
	// namesNoPlan is a receiver that does not say in WELCOME which plan it has.
	namesNoPlan bool
	pings       bool          // keep the line alive
	silent      bool          // say nothing after HELLO
	refuseLate  error         // once the log is stored
	sealEarly   string        // why nothing but the log is wanted, once the plan is here
	waitFor     time.Duration // in line, with WAIT every 15 s
	moves       bool          // the place comes nearer every minute

	mu        sync.Mutex
	sessions  atomic.Int64 // that began; tests look while one may still run
	log       []byte
	logEnd    *protocol.LogEnd
	hello     *protocol.Hello
	plan      *protocol.PlanEnd
	sum       protocol.PlanSum
	have      protocol.SeqSet
	pages     map[mem.PFN][]byte
	order     []uint64 // chunk numbers as they came
	encodings map[protocol.Encoding]int
	omitted   int
	finish    *protocol.Finish
	peerErr   error
	raw       uint64 // payload bytes
	unacked   uint64
	maxUnack  uint64
}

func newFakeReceiver(tb testing.TB) *fakeReceiver {
	tb.Helper()
	return &fakeReceiver{
		t: tb, window: 4 << 20, collect: protocol.CollectAll, pages: map[mem.PFN][]byte{}, encodings: map[protocol.Encoding]int{},
		accept: protocol.Encodings{protocol.EncodingSnappyPage, protocol.EncodingZstdPage, protocol.EncodingLZ4Block, protocol.EncodingZstdBlock},
	}
}

// dial is a Dialer to f over a pipe in memory.
func (f *fakeReceiver) dial(_ context.Context, _ string) (net.Conn, error) {
	a, b := net.Pipe()
	go f.serve(b)
	return a, nil
}

var errCut = errors.New("cut")

func (f *fakeReceiver) serve(nc net.Conn) {
	defer func() { _ = nc.Close() }()
	f.mu.Lock()
	defer f.mu.Unlock()
	f.sessions.Add(1)
	conn := protocol.NewConn(nc, protocol.Receiver)
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	err := f.session(ctx, conn)
	switch {
	case errors.Is(err, errCut):
	case err != nil && errors.Is(err, io.EOF):
	default:
		if e, ok := errors.AsType[*protocol.Error](err); ok && e.Remote {
			f.peerErr = err
		} else if err != nil && e == nil {
			f.peerErr = err
		}
		_ = conn.Shutdown(err, linger)
	}
}

// session plays a receiver's part in a straight line: it needs no second goroutine,
// because the sender reads at all times.
func (f *fakeReceiver) session(ctx context.Context, c *protocol.Conn) error {
	if f.pings {
		go func() { _ = c.KeepAlive(ctx, protocol.KeepAlive{}) }()
	}
	f.log = f.log[:0]
	for f.logEnd = nil; f.logEnd == nil; {
		m, err := c.Read()
		if err != nil {
			return err
		}
		switch m := m.(type) {
		case *protocol.Hello:
			f.hello = m
			if f.silent {
				f.silent = false
				return f.sleepOn(c)
			}
			if len(f.refuse) > 0 {
				err := f.refuse[0]
				f.refuse = f.refuse[1:]
				return err
			}
		case *protocol.Log:
			f.log = append(f.log, m.Data...)
		case *protocol.LogEnd:
			f.logEnd = m
		}
	}
	if err := c.Write(&protocol.LogStored{Bytes: f.logEnd.Bytes}); err != nil {
		return err
	}
	if f.refuseLate != nil {
		return f.refuseLate
	}
	for i := range f.waits {
		if err := c.Write(&protocol.Wait{Place: uint64(f.waits - i), Of: uint64(f.waits)}); err != nil {
			return err
		}
	}
	if err := f.line(c); err != nil {
		return err
	}
	welcome := &protocol.Welcome{
		Tool: "fake", Host: "fake", Collect: f.collect, Reason: "as told", WindowBytes: f.window,
		Encodings: f.hello.Encodings.Common(f.accept),
	}
	if f.plan != nil && !f.namesNoPlan {
		welcome.Plan = &f.plan.Hash
	}
	if err := c.Write(welcome); err != nil {
		return err
	}
	return f.receive(c)
}

// sleepOn reads on and says nothing, until the sender goes.
func (f *fakeReceiver) sleepOn(c *protocol.Conn) error {
	for {
		if _, err := c.Read(); err != nil {
			return err
		}
	}
}

// line keeps the sender waiting. It goes on when the sender has had enough.
func (f *fakeReceiver) line(c *protocol.Conn) error {
	for end := time.Now().Add(f.waitFor); time.Now().Before(end); time.Sleep(15 * time.Second) {
		place := uint64(2)
		if f.moves {
			place = 1 + uint64(time.Until(end)/time.Minute)
		}
		if err := c.Write(&protocol.Wait{Place: place, Of: place + 1, Reason: "full"}); err != nil {
			return err
		}
	}
	return nil
}

func (f *fakeReceiver) receive(c *protocol.Conn) error {
	p, _ := c.Params()
	dec := protocol.NewRunDecoder(p)
	chunks := 0
	f.unacked = 0
	for {
		m, err := c.Read()
		if err != nil {
			return err
		}
		switch m := m.(type) {
		case *protocol.Plan:
			if err := dec.Decode(m.Data, func(protocol.Run) error { return nil }); err != nil {
				return err
			}
		case *protocol.PlanEnd:
			if err := f.takePlan(c, m, dec); err != nil {
				return err
			}
		case *protocol.Chunk:
			if err := f.take(c, m, p); err != nil {
				return err
			}
			if chunks++; len(f.cutAfter) > 0 && chunks >= f.cutAfter[0] {
				f.cutAfter = f.cutAfter[1:]
				if f.cut != nil {
					f.cut()
				}
				return errCut
			}
		case *protocol.Finish:
			f.finish = m
			return f.seal(c)
		}
	}
}

func (f *fakeReceiver) takePlan(c *protocol.Conn, m *protocol.PlanEnd, dec *protocol.RunDecoder) error {
	if m.Omitted {
		f.omitted++
	} else {
		f.sum = dec.Sum()
		if err := f.sum.Check(m); err != nil {
			return err
		}
	}
	if f.sealEarly != "" {
		return c.Write(&protocol.Sealed{State: protocol.StateLogOnly, ID: "20231114-fake", Reason: f.sealEarly})
	}
	f.plan = m
	return c.Write(&protocol.PlanOK{Have: f.have})
}

// take stores a chunk, checks it against its checksum and acknowledges it.
func (f *fakeReceiver) take(c *protocol.Conn, m *protocol.Chunk, p protocol.Params) error {
	raw, err := decodeChunk(m, p)
	if err != nil {
		return err
	}
	if sum := protocol.RawSum(raw); sum != m.RawSum {
		return protocol.Errorf(protocol.CodeBadRawSum, "chunk %d", m.Seq)
	}
	for _, e := range m.Extents {
		for pfn := e.Start; pfn < e.End(); pfn++ {
			if _, ok := f.pages[pfn]; ok {
				return protocol.Errorf(protocol.CodeDuplicate, "pfn %d", uint64(pfn))
			}
			f.pages[pfn] = zeroPage
			if e.Kind == chunk.Data {
				f.pages[pfn], raw = raw[:testPage:testPage], raw[testPage:]
			}
		}
	}
	f.order = append(f.order, m.Seq)
	f.encodings[m.Encoding]++
	f.raw += uint64(len(m.Payload))
	f.unacked += uint64(len(m.Payload))
	f.maxUnack = max(f.maxUnack, f.unacked)
	if err := f.have.Add(m.Seq, m.Seq); err != nil {
		return err
	}
	c.Release(m)
	if f.neverAck {
		return nil
	}
	var set protocol.SeqSet
	if err := set.Add(m.Seq, m.Seq); err != nil {
		return err
	}
	f.unacked = 0
	return c.Write(&protocol.Ack{Durable: set})
}

func (f *fakeReceiver) seal(c *protocol.Conn) error {
	s := &protocol.Sealed{State: protocol.StateComplete, ID: "20231114-fake", Pages: uint64(len(f.pages)), SHA256: fmt.Sprintf("%064d", 0)}
	switch {
	case f.plan == nil || f.finish.Reason == protocol.ReasonLogOnly:
		s = &protocol.Sealed{State: protocol.StateLogOnly, ID: "20231114-fake"}
	case uint64(len(f.pages)) < f.plan.Kept:
		s.State, s.Missing = protocol.StatePartial, f.plan.Kept-uint64(len(f.pages))
	}
	return c.Write(s)
}

// decodeChunk returns the raw data pages of a chunk, by other means than the encoder.
func decodeChunk(m *protocol.Chunk, p protocol.Params) ([]byte, error) {
	switch m.Encoding {
	case protocol.EncodingNone:
		return bytes.Clone(m.Payload), nil
	case protocol.EncodingLZ4Block:
		out := make([]byte, m.DataPages()*testPage)
		_, err := lz4.UncompressBlock(m.Payload, out)
		return out, err
	case protocol.EncodingZstdBlock:
		return zstdDecoder.DecodeAll(m.Payload, nil)
	}
	raw := make([]byte, 0, m.DataPages()*testPage)
	rest := m.Payload
	for _, size := range m.Sizes {
		rec := rest[:size]
		rest = rest[size:]
		var page []byte
		var err error
		switch {
		case len(rec) == testPage:
			page = rec
		case m.Encoding == protocol.EncodingSnappyPage:
			page, err = snappy.Decode(nil, rec)
		default:
			page, err = zstdDecoder.DecodeAll(rec, nil)
		}
		if err != nil {
			return nil, err
		}
		raw = append(raw, page...)
	}
	return raw, nil
}

var zstdDecoder, _ = zstd.NewReader(nil, zstd.WithDecoderConcurrency(1))

// checkPages compares what arrived with what the plan wants.
func (f *fakeReceiver) checkPages(plan *Plan, missing ...mem.PFN) {
	f.t.Helper()
	f.mu.Lock()
	defer f.mu.Unlock()
	gone := map[mem.PFN]bool{}
	for _, pfn := range missing {
		gone[pfn] = true
	}
	n, want := 0, make([]byte, testPage)
	err := plan.each(context.Background(), numTiers, func(_ uint8, _ uint64, extents []mem.Extent) error {
		for _, e := range extents {
			for pfn := e.Start; pfn < e.End(); pfn++ {
				got, ok := f.pages[pfn]
				if ok == gone[pfn] {
					return fmt.Errorf("pfn %d arrived: %v", uint64(pfn), ok)
				}
				if !ok {
					continue
				}
				if fillPage(want, pfn); !bytes.Equal(got, want) {
					return fmt.Errorf("pfn %d differs", uint64(pfn))
				}
				n++
			}
		}
		return nil
	})
	if err != nil {
		f.t.Error(err)
	}
	if n != len(f.pages) {
		f.t.Errorf("%d pages arrived, %d of them planned", len(f.pages), n)
	}
}
