package receiver

import (
	"context"
	cryptotls "crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/klauspost/compress/s2"
	"github.com/klauspost/compress/zstd"
	"github.com/pierrec/lz4/v4"
	"go.uber.org/goleak"

	"github.com/corehaul/corehaul/chunk"
	"github.com/corehaul/corehaul/internal/outputtest"
	"github.com/corehaul/corehaul/mem"
	"github.com/corehaul/corehaul/protocol"
	"github.com/corehaul/corehaul/storage"
	"github.com/corehaul/corehaul/storage/local"
	corehaultls "github.com/corehaul/corehaul/tls"
	"github.com/corehaul/corehaul/uts"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m, goleak.IgnoreTopFunction("database/sql.(*DB).connectionOpener"))
}

// fakeStore is a store for tests that never use it.
type fakeStore struct{ storage.Store }

func (fakeStore) Subscribe(storage.Event) (dumps <-chan storage.Ref, cancel func()) {
	return nil, func() {}
}

func openStore(ctx context.Context, dir string) (storage.Store, error) {
	return local.Open(ctx, dir, storage.OpenOptions{})
}

// rig is a server on a store of its own, and what senders need to talk to it.
type rig struct {
	t      testing.TB
	ca     string
	data   string
	store  storage.Store
	server *Server
	addr   string
	log    *outputtest.Buffer
	stop   func() // ends the server and waits
}

func newRig(tb testing.TB, change func(*Config)) *rig {
	tb.Helper()
	r := &rig{t: tb, ca: filepath.Join(tb.TempDir(), "ca"), data: filepath.Join(tb.TempDir(), "data"), log: new(outputtest.Buffer)}
	if _, err := corehaultls.InitCA(r.ca); err != nil {
		tb.Fatal(err)
	}
	r.start(change)
	return r
}

// start starts a server on the rig's store; the one before must have been stopped.
func (r *rig) start(change func(*Config)) {
	r.t.Helper()
	store, err := openStore(r.t.Context(), r.data)
	if err != nil {
		r.t.Fatal(err)
	}
	cfg := Config{
		Store: store, Log: slog.New(slog.NewTextHandler(r.log, &slog.HandlerOptions{Level: slog.LevelDebug})),
		ResumeGrace: time.Hour, IdleTimeout: 20 * time.Second, CommitInterval: 5 * time.Millisecond,
	}
	if change != nil {
		change(&cfg)
	}
	server, err := New(cfg)
	if err != nil {
		r.t.Fatal(err)
	}
	ofCA, err := corehaultls.ServerConfig(r.ca)
	if err != nil {
		r.t.Fatal(err)
	}
	tlsConfig, err := NewTLSConfig(ofCA)
	if err != nil {
		r.t.Fatal(err)
	}
	var lc net.ListenConfig
	l, err := lc.Listen(r.t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		r.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(r.t.Context()))
	var wg sync.WaitGroup
	for _, f := range []func() error{
		func() error { return server.Run(ctx) },
		func() error { return server.ServeTLS(ctx, l, tlsConfig) },
	} {
		wg.Go(func() {
			// A test may be over before the server has looked what an earlier one left.
			if err := f(); err != nil && !errors.Is(err, context.Canceled) {
				r.t.Error(err)
			}
		})
	}
	r.store, r.server, r.addr = store, server, l.Addr().String()
	r.stop = sync.OnceFunc(func() {
		cancel()
		wg.Wait()
		if err := store.Close(); err != nil {
			r.t.Error(err)
		}
		if r.t.Failed() {
			r.t.Log(r.log)
		}
	})
	r.t.Cleanup(r.stop)
}

// identity issues an identity of the rig's CA.
func (r *rig) identity(host string) *corehaultls.Identity {
	r.t.Helper()
	pem, err := corehaultls.IssueHost(r.ca, host)
	if err != nil {
		r.t.Fatal(err)
	}
	file := filepath.Join(r.t.TempDir(), "identity.pem")
	if err := corehaultls.WriteIdentity(file, pem); err != nil {
		r.t.Fatal(err)
	}
	id, err := corehaultls.LoadIdentity(file)
	if err != nil {
		r.t.Fatal(err)
	}
	return id
}

// connect returns an authenticated connection.
func (r *rig) connect(host string) *cryptotls.Conn {
	r.t.Helper()
	d := cryptotls.Dialer{Config: corehaultls.ClientConfig(r.identity(host))}
	conn, err := d.DialContext(r.t.Context(), "tcp", r.addr)
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { _ = conn.Close() })
	return conn.(*cryptotls.Conn)
}

// peer is a sender that does as a test tells it.
type peer struct {
	t    testing.TB
	raw  *cryptotls.Conn
	wire *protocol.Conn
	dump *testDump
}

func (r *rig) peer(host string, d *testDump) *peer {
	r.t.Helper()
	conn := r.connect(host)
	p := &peer{t: r.t, raw: conn, wire: protocol.NewConn(conn, protocol.Sender), dump: d}
	ctx, cancel := context.WithCancel(context.WithoutCancel(r.t.Context()))
	var alive sync.WaitGroup
	alive.Go(func() { _ = p.wire.KeepAlive(ctx, protocol.KeepAlive{Heartbeat: time.Second}) })
	r.t.Cleanup(func() { cancel(); alive.Wait() })
	return p
}

func (p *peer) send(m protocol.Message) {
	p.t.Helper()
	if err := p.wire.Write(m); err != nil {
		p.t.Fatalf("send %s: %v", m.Type(), err)
	}
}

// expect reads messages until one of type M comes; only WAIT and ACK are passed over.
func expect[M protocol.Message](p *peer) M {
	p.t.Helper()
	for {
		msg, err := p.wire.Read()
		if err != nil {
			var want M
			p.t.Fatalf("waiting for %s: %v", want.Type(), err)
		}
		if m, ok := msg.(M); ok {
			return m
		}
		switch msg.(type) {
		case *protocol.Wait, *protocol.Ack:
		default:
			var want M
			p.t.Fatalf("got %s, want %s", msg.Type(), want.Type())
		}
	}
}

// refused reads until the receiver ends the session and checks the code it gives.
func (p *peer) refused(want protocol.Code) {
	p.t.Helper()
	if err := p.raw.SetReadDeadline(time.Now().Add(time.Minute)); err != nil {
		p.t.Fatal(err)
	}
	for {
		_, err := p.wire.Read()
		if err == nil {
			continue
		}
		if !errors.Is(err, want) {
			p.t.Errorf("got %v, want code %s", err, want)
		}
		return
	}
}

// hello sends everything up to LOGEND and waits until the log is stored.
func (p *peer) hello() {
	p.t.Helper()
	d := p.dump
	p.send(&d.hello)
	if err := p.wire.WriteNotes(d.notes); err != nil {
		p.t.Fatal(err)
	}
	if err := p.wire.WriteRAM(d.ram); err != nil {
		p.t.Fatal(err)
	}
	log := p.wire.NewLogWriter()
	if _, err := io.WriteString(log, d.log); err != nil {
		p.t.Fatal(err)
	}
	if err := log.Close(""); err != nil {
		p.t.Fatal(err)
	}
	if stored := expect[*protocol.LogStored](p); stored.Bytes != uint64(len(d.log)) {
		p.t.Errorf("%d bytes of log are stored, want %d", stored.Bytes, len(d.log))
	}
}

// plan waits for WELCOME, sends the plan and returns what the receiver has of it.
func (p *peer) plan() protocol.SeqSet {
	p.t.Helper()
	expect[*protocol.Welcome](p)
	p.sendPlan()
	return expect[*protocol.PlanOK](p).Have
}

func (p *peer) sendPlan() {
	p.t.Helper()
	enc := protocol.NewRunEncoder(p.dump.hello.Params(), func(piece []byte) error {
		return p.wire.Write(&protocol.Plan{Data: piece})
	})
	for _, run := range p.dump.runs {
		if err := enc.Add(run); err != nil {
			p.t.Fatal(err)
		}
	}
	sum, err := enc.Close()
	if err != nil {
		p.t.Fatal(err)
	}
	p.send(p.dump.planEnd(&sum))
}

// chunk sends one chunk of the plan.
func (p *peer) chunk(seq uint64) {
	p.t.Helper()
	p.send(p.dump.chunk(p.t, seq))
}

// acked waits until the receiver has acknowledged all these chunks.
func (p *peer) acked(want ...uint64) {
	p.t.Helper()
	missing := map[uint64]bool{}
	for _, seq := range want {
		missing[seq] = true
	}
	for len(missing) > 0 {
		msg, err := p.wire.Read()
		if err != nil {
			p.t.Fatalf("waiting for acks of %v: %v", missing, err)
		}
		if ack, ok := msg.(*protocol.Ack); ok {
			for r := range ack.Durable.Ranges() {
				for seq := r.First; seq <= r.Last; seq++ {
					delete(missing, seq)
				}
			}
		}
	}
}

// finish ends the dump and returns what became of it.
func (p *peer) finish(reason protocol.Reason) *protocol.Sealed {
	p.t.Helper()
	p.send(&protocol.Finish{Reason: reason})
	return expect[*protocol.Sealed](p)
}

// whole sends the whole dump.
func (p *peer) whole() *protocol.Sealed {
	p.t.Helper()
	p.hello()
	have := p.plan()
	for seq := range uint64(len(p.dump.cut)) {
		if !have.Contains(seq) {
			p.chunk(seq)
		}
	}
	return p.finish(protocol.ReasonComplete)
}

// testDump is a small machine and its plan.
type testDump struct {
	hello    protocol.Hello
	notes    []byte
	ram      []mem.Range
	log      string
	runs     []protocol.Run
	cut      [][]mem.Extent // the extents of each chunk
	seed     uint64
	encoding protocol.Encoding
}

const testPage = 4096

// newDump returns a machine of 16 MiB of which 1050 pages in two tiers are kept: five
// chunks. Machines with different seeds have different ids and contents.
func newDump(tb testing.TB, seed uint64) *testDump {
	tb.Helper()
	d := &testDump{
		notes: testNotes(seed), seed: seed, encoding: protocol.EncodingSnappyPage,
		ram: []mem.Range{{Start: 0x1000, End: 0xa0000}, {Start: 0x100000, End: 0x1000000}},
		log: "[    0.000000] Linux version 6.1.0\n[   10.000000] sysrq: Trigger a crash\n" +
			fmt.Sprintf("[   10.000001] Kernel panic - not syncing: test %d\n", seed),
	}
	d.hello = protocol.Hello{
		DumpID: protocol.DumpID(nil, d.notes, nil), Tool: "test 1", Machine: "x86_64", PageSize: testPage, MaxPFN: 4096,
		RAMBytes: 16 << 20, NrCPUs: 1, Level: 31, CrashTime: 1700000000,
		Uts: uts.Name{Sysname: "Linux", Nodename: "victim", Release: "6.1.0-test", Machine: "x86_64"},
		Encodings: protocol.Encodings{
			protocol.EncodingSnappyPage, protocol.EncodingZstdPage, protocol.EncodingLZ4Block, protocol.EncodingZstdBlock,
		},
	}
	d.planned(tb, []protocol.Run{
		{Extent: mem.Extent{Start: 1, Count: 150}},
		{Extent: mem.Extent{Start: 256, Count: 200}, Tier: 1},
		{Extent: mem.Extent{Start: 600, Count: 400}},
		{Extent: mem.Extent{Start: 1000, Count: 300}, Tier: 1},
	})
	return d
}

// planned makes these runs the plan.
func (d *testDump) planned(tb testing.TB, runs []protocol.Run) {
	tb.Helper()
	d.runs, d.cut = runs, nil
	for tier := range uint8(2) {
		cutter := protocol.NewCutter(testPage, func(e []mem.Extent) error {
			d.cut = append(d.cut, append([]mem.Extent(nil), e...))
			return nil
		})
		for _, run := range d.runs {
			if run.Tier != tier {
				continue
			}
			if err := cutter.Add(run.Extent); err != nil {
				tb.Fatal(err)
			}
		}
		if err := cutter.Flush(); err != nil {
			tb.Fatal(err)
		}
	}
}

// testNotes is a PT_NOTE with a VMCOREINFO.
func testNotes(seed uint64) []byte {
	text := fmt.Sprintf("OSRELEASE=6.1.0-test\nPAGESIZE=4096\nCRASHTIME=1700000000\nSEED=%d\n", seed)
	for len(text)%4 != 0 {
		text += "\n"
	}
	b := binary.LittleEndian.AppendUint32(nil, 11)
	b = binary.LittleEndian.AppendUint32(b, uint32(len(text)))
	b = binary.LittleEndian.AppendUint32(b, 0)
	return append(append(b, "VMCOREINFO\x00\x00"...), text...)
}

func (d *testDump) planEnd(sum *protocol.PlanSum) *protocol.PlanEnd {
	end := &protocol.PlanEnd{
		Hash: sum.Hash, Runs: sum.Runs, Kept: sum.Kept, Chunks: sum.Chunks(), Codec: protocol.EncodingSnappyPage,
		Pages: protocol.PageCounts{Total: 4000, Kept: sum.Kept},
	}
	for tier, pages := range sum.Pages {
		if pages > 0 {
			end.Tiers = append(end.Tiers, protocol.Tier{Name: fmt.Sprintf("tier%d", tier), Pages: pages, Chunks: sum.TierChunks(tier)})
		}
	}
	return end
}

// hasData says of a page that it is not all zeros.
func hasData(pfn mem.PFN) bool { return pfn%8 < 3 }

// page returns the contents of a page: noise, text or zeros.
func (d *testDump) page(pfn mem.PFN) []byte {
	p := make([]byte, testPage)
	switch {
	case !hasData(pfn):
	case pfn%8 == 0:
		rng := rand.NewPCG(d.seed, uint64(pfn))
		for i := 0; i < len(p); i += 8 {
			binary.LittleEndian.PutUint64(p[i:], rng.Uint64())
		}
	default:
		text := fmt.Sprintf("page %d of %d. ", pfn, d.seed)
		copy(p, strings.Repeat(text, testPage/len(text)+1))
	}
	return p
}

// chunk returns chunk seq of the plan in the dump's encoding.
func (d *testDump) chunk(tb testing.TB, seq uint64) *protocol.Chunk {
	tb.Helper()
	ch := &protocol.Chunk{Seq: seq, Encoding: d.encoding}
	var raw []byte
	for _, e := range d.cut[seq] {
		for pfn := e.Start; pfn < e.End(); pfn++ {
			kind := chunk.Data
			if hasData(pfn) {
				raw = append(raw, d.page(pfn)...)
			} else {
				kind = chunk.Zero
			}
			ch.Extents = chunk.AppendPage(ch.Extents, pfn, kind)
		}
	}
	ch.RawSum = protocol.RawSum(raw)
	switch d.encoding {
	case protocol.EncodingNone:
		ch.Payload = raw
	case protocol.EncodingLZ4Block:
		ch.Payload = lz4Block(tb, raw)
	case protocol.EncodingZstdBlock:
		ch.Payload = zstdFrame(tb, raw)
	default:
		for ; len(raw) > 0; raw = raw[testPage:] {
			record := d.record(tb, raw[:testPage])
			ch.Sizes = append(ch.Sizes, uint32(len(record)))
			ch.Payload = append(ch.Payload, record...)
		}
	}
	return ch
}

func (d *testDump) record(tb testing.TB, page []byte) []byte {
	tb.Helper()
	out := s2.EncodeSnappy(nil, page)
	if d.encoding == protocol.EncodingZstdPage {
		out = zstdFrame(tb, page)
	}
	if len(out) >= len(page) {
		return page
	}
	return out
}

// testEncoder returns a zstd encoder; making one takes much longer than using it.
var testEncoder = sync.OnceValues(func() (*zstd.Encoder, error) {
	return zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1))
})

func zstdFrame(tb testing.TB, p []byte) []byte {
	tb.Helper()
	enc, err := testEncoder()
	if err != nil {
		tb.Fatal(err)
	}
	return enc.EncodeAll(p, nil)
}

func lz4Block(tb testing.TB, p []byte) []byte {
	tb.Helper()
	out := make([]byte, lz4.CompressBlockBound(len(p)))
	n, err := lz4.CompressBlock(p, out, nil)
	if err != nil {
		tb.Fatal(err)
	}
	return out[:n]
}
