package receiver

import (
	"bytes"
	"encoding/binary"
	"hash/crc32"
	"io"
	"net"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/corehaul/corehaul/chunk"
	"github.com/corehaul/corehaul/dumpdir"
	"github.com/corehaul/corehaul/intake"
	"github.com/corehaul/corehaul/mem"
	"github.com/corehaul/corehaul/protocol"
	"github.com/corehaul/corehaul/storage"
	"github.com/corehaul/corehaul/vmcore/dumpfile"
)

// stored returns the one dump of a host, and checks that it verifies.
func (r *rig) stored(host string) *dumpdir.Manifest {
	r.t.Helper()
	entries, err := r.store.List(r.t.Context(), storage.Filter{Host: storage.Patterns{host}})
	if err != nil || len(entries) != 1 {
		r.t.Fatalf("%d dumps of %s: %v", len(entries), host, err)
	}
	d, err := r.store.Open(r.t.Context(), entries[0].Ref)
	if err != nil {
		r.t.Fatal(err)
	}
	defer func() { _ = d.Close() }()
	report, err := d.Verify(r.t.Context(), dumpdir.VerifyOptions{})
	if err != nil {
		r.t.Fatal(err)
	}
	if !report.OK() {
		r.t.Errorf("dump of %s is damaged: %+v", host, report.Findings)
	}
	return d.Manifest()
}

// samePages compares the pages of a host's vmcore with those of the crashed machine: those of
// these chunks are there and no others, though an arriving dump lists all of its plan.
func (r *rig) samePages(host string, d *testDump, chunks ...uint64) {
	r.t.Helper()
	entries, err := r.store.List(r.t.Context(), storage.Filter{Host: storage.Patterns{host}})
	if err != nil || len(entries) != 1 {
		r.t.Fatalf("%d dumps of %s: %v", len(entries), host, err)
	}
	dump, err := r.store.Open(r.t.Context(), entries[0].Ref)
	if err != nil {
		r.t.Fatal(err)
	}
	defer func() { _ = dump.Close() }()
	path, ok := dump.VMCorePath()
	if !ok {
		r.t.Fatalf("dump of %s has no vmcore", host)
	}
	img, err := dumpfile.Open(path)
	if err != nil {
		r.t.Fatal(err)
	}
	defer func() { _ = img.Close() }()
	want := uint64(0)
	got := make([]byte, testPage)
	for seq, extents := range d.cut {
		here := slices.Contains(chunks, uint64(seq))
		for _, e := range extents {
			if here || dump.State() == dumpdir.StateArriving {
				want += e.Count
			}
			for pfn := e.Start; pfn < e.End(); pfn++ {
				err := img.ReadPage(got, pfn)
				if here && (err != nil || !bytes.Equal(got, d.page(pfn))) {
					r.t.Fatalf("pfn %d is not as it was sent: %v", pfn, err)
				}
				if !here && err == nil {
					r.t.Fatalf("pfn %d of chunk %d is there", pfn, seq)
				}
			}
		}
	}
	pages := uint64(0)
	for e, err := range img.Pages() {
		if err != nil {
			r.t.Fatal(err)
		}
		pages += e.Count
	}
	if pages != want {
		r.t.Errorf("%d pages in %s, want %d", pages, path, want)
	}
}

func TestWholeDump(t *testing.T) {
	for _, encoding := range []protocol.Encoding{
		protocol.EncodingNone, protocol.EncodingSnappyPage, protocol.EncodingZstdPage,
		protocol.EncodingLZ4Block, protocol.EncodingZstdBlock,
	} {
		t.Run(encoding.String(), func(t *testing.T) {
			r := newRig(t, nil)
			d := newDump(t, 1)
			d.encoding = encoding
			sealed := r.peer("web1", d).whole()
			if sealed.State != protocol.StateComplete || sealed.Pages != 1050 || sealed.SHA256 == "" {
				t.Errorf("sealed as %+v, want 1050 pages, complete", sealed)
			}
			m := r.stored("web1")
			if m.State != dumpdir.StateComplete || m.PanicLine != "Kernel panic - not syncing: test 1" || m.Nodename != "victim" {
				t.Errorf("manifest says %s, %q, %q", m.State, m.PanicLine, m.Nodename)
			}
			r.samePages("web1", d, 0, 1, 2, 3, 4)
		})
	}
}

func TestCompleteDumpNeedsNothingMore(t *testing.T) {
	r := newRig(t, nil)
	d := newDump(t, 1)
	first := r.peer("web1", d).whole()
	p := r.peer("web1", d)
	p.hello()
	if again := expect[*protocol.Sealed](p); *again != *first {
		t.Errorf("got %+v, want %+v", again, first)
	}
}

// TestFileLevelCountsAsLeftOut sends a kdump-compressed file once more, which lacks the pages
// of its own level whatever is asked of it: that is no more than what is stored.
func TestFileLevelCountsAsLeftOut(t *testing.T) {
	r := newRig(t, nil)
	d := newDump(t, 1)
	d.hello.Level, d.hello.FileLevel = 1, 30
	d.hello.BigEndian, d.hello.ExcludedVmemmap = true, true
	first := r.peer("web1", d).whole()
	if m := r.stored("web1"); m.Plan.Level != 31 {
		t.Errorf("dump level %d, want that of both", m.Plan.Level)
	}
	p := r.peer("web1", d)
	p.hello()
	if again := expect[*protocol.Sealed](p); *again != *first {
		t.Errorf("got %+v, want %+v", again, first)
	}
}

// TestBrokenHelloIsNoSeal has senders break off before their log, one for a dump that
// waits for its sender, one for a complete one.
func TestBrokenHelloIsNoSeal(t *testing.T) {
	r := newRig(t, func(c *Config) { c.ResumeGrace = 200 * time.Millisecond })
	complete, left := newDump(t, 1), newDump(t, 2)
	r.peer("web1", complete).whole()
	r.peer("web2", left).hello()
	for host, d := range map[string]*testDump{"web1": complete, "web2": left} {
		p := r.peer(host, d)
		p.send(&d.hello)
		_ = p.raw.NetConn().Close()
	}
	r.eventually("the waiting dump is sealed all the same", func() bool {
		return strings.Contains(r.log.String(), "msg=\"sealed a dump")
	})
	r.eventually("nothing waits any more", r.server.idle)
	if m := r.stored("web1"); m.State != dumpdir.StateComplete {
		t.Errorf("the complete dump is %s", m.State)
	}
	if m := r.stored("web2"); m.State != dumpdir.StateLogOnly {
		t.Errorf("the waiting dump is %s", m.State)
	}
	if log := r.log.String(); strings.Count(log, "msg=\"sealed a dump") != 1 {
		t.Error("the complete dump was sealed again")
	}
}

// idle reports whether no dump is being written, nor waits for its sender.
func (s *Server) idle() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.expiry.mu.Lock()
	defer s.expiry.mu.Unlock()
	return len(s.claims) == 0 && len(s.expiry.due) == 0
}

func TestResume(t *testing.T) {
	r := newRig(t, nil)
	d := newDump(t, 1)
	p := r.peer("web1", d)
	p.hello()
	p.plan()
	p.chunk(3)
	p.chunk(0)
	p.acked(0, 3)
	_ = p.raw.NetConn().Close() // no farewell
	p = r.peer("web1", d)
	p.hello()
	have := p.plan()
	if got := slices.Collect(have.Ranges()); !slices.Equal(got, []chunk.SeqRange{{First: 0, Last: 0}, {First: 3, Last: 3}}) {
		t.Fatalf("receiver has %v, want chunks 0 and 3", got)
	}
	for _, seq := range []uint64{1, 2, 4} {
		p.chunk(seq)
	}
	if sealed := p.finish(protocol.ReasonComplete); sealed.State != protocol.StateComplete {
		t.Errorf("sealed as %s", sealed.State)
	}
	r.samePages("web1", d, 0, 1, 2, 3, 4)
}

func TestPartialByDeadline(t *testing.T) {
	r := newRig(t, nil)
	d := newDump(t, 1)
	p := r.peer("web1", d)
	p.hello()
	p.plan()
	p.chunk(2)
	sealed := p.finish(protocol.ReasonDeadline)
	if sealed.State != protocol.StatePartial || sealed.Pages+sealed.Missing != 1050 {
		t.Errorf("sealed as %+v", sealed)
	}
	if m := r.stored("web1"); m.State != dumpdir.StatePartial || !strings.Contains(m.Reason, "deadline") {
		t.Errorf("manifest says %s, %q", m.State, m.Reason)
	}
	r.samePages("web1", d, 2)
	// The sender got more time after all.
	if sealed := r.peer("web1", d).whole(); sealed.State != protocol.StateComplete {
		t.Errorf("sealed again as %s", sealed.State)
	}
	r.samePages("web1", d, 0, 1, 2, 3, 4)
}

func TestLogOnly(t *testing.T) {
	r := newRig(t, nil)
	p := r.peer("web1", newDump(t, 1))
	p.hello()
	expect[*protocol.Welcome](p)
	if sealed := p.finish(protocol.ReasonCancelled); sealed.State != protocol.StateLogOnly {
		t.Errorf("sealed as %s", sealed.State)
	}
	if m := r.stored("web1"); m.State != dumpdir.StateLogOnly || m.PanicLine == "" {
		t.Errorf("manifest says %s, %q", m.State, m.PanicLine)
	}
}

// TestShorterLogIsNotTaken has a sender come back that can read less of the log.
func TestShorterLogIsNotTaken(t *testing.T) {
	r := newRig(t, nil)
	d := newDump(t, 1)
	r.peer("web1", d).hello()
	worse := newDump(t, 1)
	worse.log = "[    0.000000] Linux version 6.1.0\n"
	p := r.peer("web1", worse)
	p.hello()
	p.plan()
	p.finish(protocol.ReasonCancelled)
	entry, err := r.store.Find(t.Context(), d.hello.DumpID)
	if err != nil {
		t.Fatal(err)
	}
	if m := entry.Manifest; m.Bytes.Log != int64(len(d.log)) || m.PanicLine == "" {
		t.Errorf("%d bytes of log with panic line %q, want the first one's %d", m.Bytes.Log, m.PanicLine, len(d.log))
	}
	if m := r.stored("web1"); m.State != dumpdir.StatePartial {
		t.Errorf("sealed as %s", m.State)
	}
}

// TestMisbehaviour has a sender do what it must not, after chunk 0 was acknowledged.
func TestMisbehaviour(t *testing.T) {
	for _, tc := range []struct {
		name string
		do   func(p *peer)
		want protocol.Code
	}{
		{"bad frame checksum", func(p *peer) { p.rawFrame(protocol.TypeFinish, []byte("{}"), 1) }, protocol.CodeBadChecksum},
		{"oversize length", func(p *peer) { p.rawHeader(protocol.TypeChunk, 1<<31) }, protocol.CodeTooLarge},
		{"garbage", func(p *peer) { p.rawBytes([]byte(strings.Repeat("GET / HTTP/1.1\r\n", 10))) }, protocol.CodeBadFrame},
		{"unknown type", func(p *peer) { p.rawFrame(0x3f, nil, 0) }, protocol.CodeUnknownType},
		{"message out of order", func(p *peer) { p.rawFrame(protocol.TypeLogEnd, []byte("{}"), 0) }, ""},
		{"number outside the plan", func(p *peer) { p.rawChunk(func(ch *protocol.Chunk) { ch.Seq = 5 }) }, protocol.CodeNotPlanned},
		{"pages outside the plan", func(p *peer) {
			p.rawChunk(func(ch *protocol.Chunk) {
				ch.Extents = []chunk.Extent{{Extent: mem.Extent{Start: 3000, Count: 1}, Kind: chunk.Zero}}
				ch.Encoding, ch.Sizes, ch.Payload, ch.RawSum = protocol.EncodingNone, nil, nil, protocol.RawSum(nil)
			})
		}, protocol.CodeNotPlanned},
		{"page beyond max_pfn", func(p *peer) {
			p.rawChunk(func(ch *protocol.Chunk) {
				ch.Extents = []chunk.Extent{{Extent: mem.Extent{Start: 4096, Count: 1}, Kind: chunk.Zero}}
				ch.Encoding, ch.Sizes, ch.Payload, ch.RawSum = protocol.EncodingNone, nil, nil, protocol.RawSum(nil)
			})
		}, protocol.CodeNotPlanned},
		{"chunk twice", func(p *peer) { p.chunk(0) }, protocol.CodeDuplicate},
		{"pages of another chunk", func(p *peer) {
			ch := p.dump.chunk(p.t, 0)
			ch.Seq = 1
			p.send(ch)
		}, protocol.CodeDuplicate},
		{"bad raw checksum", func(p *peer) { p.rawChunk(func(ch *protocol.Chunk) { ch.RawSum++ }) }, protocol.CodeBadRawSum},
		{"page that does not decode", func(p *peer) {
			p.rawChunk(func(ch *protocol.Chunk) {
				for i := range ch.Payload {
					ch.Payload[i] = 0xff
				}
			})
		}, protocol.CodeBadEncoding},
		{"block that does not decode", func(p *peer) {
			p.dump.encoding = protocol.EncodingLZ4Block
			p.rawChunk(func(ch *protocol.Chunk) { clear(ch.Payload[len(ch.Payload)/2:]) })
		}, protocol.CodeBadEncoding},
		{"block of more pages", func(p *peer) {
			p.dump.encoding = protocol.EncodingZstdBlock
			p.rawChunk(func(ch *protocol.Chunk) { ch.Payload = zstdFrame(p.t, make([]byte, 64<<20)) })
		}, protocol.CodeBadEncoding},
	} {
		t.Run(tc.name, func(t *testing.T) {
			r := newRig(t, nil)
			d := newDump(t, 1)
			p := r.peer("web1", d)
			p.hello()
			p.plan()
			p.chunk(0)
			p.acked(0)
			tc.do(p)
			if tc.want == "" {
				tc.want = protocol.CodeOutOfOrder
			}
			p.refused(tc.want)
			if log := r.log.String(); !strings.Contains(log, "code="+string(tc.want)) ||
				!strings.Contains(log, "host=web1") || !strings.Contains(log, "dump="+d.hello.DumpID) {
				t.Errorf("the log does not name code, host and dump:\n%s", log)
			}
			d.encoding = protocol.EncodingSnappyPage
			p = r.peer("web1", d)
			p.hello()
			if have := p.plan(); !have.Contains(0) || have.Len() != 1 {
				t.Errorf("after the refusal %d chunks are stored, want chunk 0", have.Len())
			}
			for seq := range uint64(4) {
				p.chunk(seq + 1)
			}
			if sealed := p.finish(protocol.ReasonComplete); sealed.State != protocol.StateComplete {
				t.Errorf("sealed as %s", sealed.State)
			}
			r.samePages("web1", d, 0, 1, 2, 3, 4)
		})
	}
}

// rawChunk sends chunk 1 changed in a way that the sender's own end would refuse.
func (p *peer) rawChunk(change func(*protocol.Chunk)) {
	p.t.Helper()
	ch := p.dump.chunk(p.t, 1)
	change(ch)
	b := binary.LittleEndian.AppendUint64(nil, ch.Seq)
	b = binary.LittleEndian.AppendUint64(b, ch.RawSum)
	b = append(b, byte(ch.Encoding), 0)
	b = binary.LittleEndian.AppendUint16(b, uint16(len(ch.Extents)))
	end := mem.PFN(0)
	for _, e := range ch.Extents {
		b = binary.AppendUvarint(b, uint64(e.Start-end))
		b = binary.AppendUvarint(b, e.Count<<2|uint64(e.Kind))
		end = e.End()
	}
	for _, n := range ch.Sizes {
		b = binary.AppendUvarint(b, uint64(n))
	}
	p.rawFrame(protocol.TypeChunk, append(b, ch.Payload...), 0)
}

// rawFrame sends a frame as PROTOCOL.md lays it out, its checksum off by wrong.
func (p *peer) rawFrame(typ protocol.Type, payload []byte, wrong uint32) {
	p.t.Helper()
	head := p.header(typ, len(payload))
	sum := crc32c(append(slices.Clone(head), payload...)) + wrong
	p.rawBytes(append(binary.LittleEndian.AppendUint32(head, sum), payload...))
}

func (p *peer) rawHeader(typ protocol.Type, length int) {
	p.t.Helper()
	head := p.header(typ, length)
	p.rawBytes(binary.LittleEndian.AppendUint32(head, crc32c(head)))
}

func (p *peer) header(typ protocol.Type, length int) []byte {
	return binary.LittleEndian.AppendUint32([]byte{'c', 'h', byte(typ), 0}, uint32(length))
}

func (p *peer) rawBytes(b []byte) {
	p.t.Helper()
	if _, err := p.raw.Write(b); err != nil {
		p.t.Fatal(err)
	}
}

// TestSecondSessionTakesOver has a sender come back before the receiver noticed that
// the line was cut.
func TestSecondSessionTakesOver(t *testing.T) {
	r := newRig(t, func(c *Config) { c.MaxActive = 1 })
	d := newDump(t, 1)
	old := r.peer("web1", d)
	old.hello()
	old.plan()
	old.chunk(0)
	old.acked(0)
	p := r.peer("web1", d)
	p.hello()
	have := p.plan()
	if !have.Contains(0) {
		t.Error("the newer session does not have the chunk of the older")
	}
	old.refused(protocol.CodeSuperseded)
	p.chunk(1)
	p.acked(1)
	for seq := range uint64(3) {
		p.chunk(seq + 2)
	}
	if sealed := p.finish(protocol.ReasonComplete); sealed.State != protocol.StateComplete {
		t.Errorf("sealed as %s", sealed.State)
	}
	r.samePages("web1", d, 0, 1, 2, 3, 4)
}

func TestForeignHostIsRefused(t *testing.T) {
	r := newRig(t, nil)
	d := newDump(t, 1)
	p := r.peer("web1", d)
	p.hello()
	p.plan()
	thief := r.peer("web2", d)
	thief.send(&d.hello)
	thief.refused(protocol.CodeIdentity)
	p.chunk(0)
	p.acked(0)
	_ = p.raw.NetConn().Close()
	thief = r.peer("web2", d) // the dump is nobody's session now, but still web1's
	thief.send(&d.hello)
	thief.refused(protocol.CodeIdentity)
	if sealed := r.peer("web1", d).whole(); sealed.State != protocol.StateComplete {
		t.Errorf("sealed as %s", sealed.State)
	}
}

func TestLeftDumpIsSealed(t *testing.T) {
	r := newRig(t, func(c *Config) { c.ResumeGrace = 50 * time.Millisecond })
	d := newDump(t, 1)
	p := r.peer("web1", d)
	p.hello()
	p.plan()
	p.chunk(0)
	p.acked(0)
	_ = p.raw.NetConn().Close()
	q := r.peer("web2", newDump(t, 2))
	q.hello()
	_ = q.raw.NetConn().Close()
	r.eventually("both are sealed", func() bool { return strings.Count(r.log.String(), "msg=\"sealed a dump") == 2 })
	if m := r.stored("web1"); m.State != dumpdir.StatePartial || m.Pages.Present != 256 {
		t.Errorf("sealed as %s with %d pages, want partial with 256", m.State, m.Pages.Present)
	}
	if m := r.stored("web2"); m.State != dumpdir.StateLogOnly || m.PanicLine == "" {
		t.Errorf("sealed as %s with panic line %q, want log-only", m.State, m.PanicLine)
	}
}

func (r *rig) eventually(what string, cond func() bool) {
	r.t.Helper()
	for end := time.Now().Add(5 * time.Minute); !cond(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			r.t.Fatalf("never: %s", what)
		}
	}
}

func TestRestartAndShutdown(t *testing.T) {
	r := newRig(t, nil)
	d := newDump(t, 1)
	p := r.peer("web1", d)
	p.hello()
	p.plan()
	p.chunk(0)
	p.acked(0)
	p.chunk(1)
	stopped := make(chan struct{})
	go func() { r.stop(); close(stopped) }()
	p.refused(protocol.CodeShuttingDown)
	_ = p.raw.Close()
	<-stopped
	if !strings.Contains(r.log.String(), "shutting-down") {
		t.Error("the log does not say why the session ended")
	}
	r.start(nil)
	p = r.peer("web1", d)
	p.hello()
	if have := p.plan(); !have.Contains(0) {
		t.Error("chunk 0 is lost")
	}
	_ = p.raw.NetConn().Close()
	r.stop()
	r.start(func(c *Config) { c.ResumeGrace = 50 * time.Millisecond })
	r.eventually("the dump left by the server before is sealed", func() bool {
		return strings.Contains(r.log.String(), "msg=\"sealed a dump")
	})
	if m := r.stored("web1"); m.State != dumpdir.StatePartial {
		t.Errorf("sealed as %s", m.State)
	}
}

// TestSilentPeersAreCutOff has a peer that says nothing, and one that sends a byte now and then: it gets no further than
// the time for a hello.
func TestSilentPeersAreCutOff(t *testing.T) {
	r := newRig(t, nil)
	idle := r.server.cfg.IdleTimeout
	for name, tc := range map[string]struct{ pause, cutAfter time.Duration }{
		"silent": {time.Hour, idle}, "slow": {idle - time.Second, helloPatience * idle}, // by then the head of a frame is not complete
	} {
		synctest.Test(t, func(t *testing.T) {
			s, err := New(r.server.cfg)
			if err != nil {
				t.Fatal(err)
			}
			here, there := net.Pipe()
			go func() { _, _ = io.Copy(io.Discard, here) }()
			ended := make(chan struct{})
			begin := time.Now()
			go func() {
				defer close(ended)
				_ = s.HandleConn(t.Context(), there, Peer{Host: name, Addr: name}) // it is in the log
			}()
			for done := false; !done; {
				select {
				case <-ended:
					done = true
				case <-time.After(tc.pause):
					_, _ = here.Write([]byte{'c'})
				}
			}
			if took := time.Since(begin); took < tc.cutAfter || took > tc.cutAfter+intake.Linger {
				t.Errorf("%s: cut off after %v, want %v", name, took, tc.cutAfter)
			}
		})
	}
	if n := strings.Count(r.log.String(), "session ended early"); n != 2 {
		t.Errorf("%d sessions ended early, want 2", n)
	}
}

func crc32c(b []byte) uint32 { return crc32.Checksum(b, crc32.MakeTable(crc32.Castagnoli)) }
