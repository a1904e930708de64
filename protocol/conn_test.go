package protocol

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/corehaul/corehaul/chunk"
	"github.com/corehaul/corehaul/mem"
)

// connect returns both ends of a connection over a real socket.
func connect(t *testing.T) (sender, receiver *Conn) {
	t.Helper()
	s, r := sockets(t)
	return NewConn(s, Sender), NewConn(r, Receiver)
}

func sockets(t *testing.T) (a, b net.Conn) {
	t.Helper()
	var lc net.ListenConfig
	l, err := lc.Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	var d net.Dialer
	if a, err = d.DialContext(t.Context(), "tcp", l.Addr().String()); err != nil {
		t.Fatal(err)
	}
	if b, err = l.Accept(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _, _ = a.Close(), b.Close() })
	return a, b
}

// script is a whole session, message by message, with who says it.
func script(tb testing.TB) []struct {
	from Side
	m    Message
} {
	tb.Helper()
	type line = struct {
		from Side
		m    Message
	}
	sum := sumOf(tb, exampleParams, exampleRuns())
	log := []byte("[    0.000000] Linux\n")
	page := bytes.Repeat([]byte("A"), 4096)
	return []line{
		{Sender, exampleHello()},
		{Sender, &Notes{Data: []byte("notes")}},
		{Sender, &RAM{Ranges: []mem.Range{{Start: 0, End: 0x9fc00}}}},
		{Sender, &Log{Data: log}},
		{Sender, &LogEnd{Bytes: uint64(len(log)), Sum: Sum64(RawSum(log))}},
		{Receiver, &LogStored{Bytes: uint64(len(log))}},
		{Receiver, &Wait{Place: 1, Of: 1}},
		{Receiver, &Welcome{Version: 1, Tool: "corehaul", Host: "h", Collect: CollectAll, WindowBytes: 1, Encodings: Encodings{EncodingZstdPage}}},
		{Sender, &Plan{Data: encodeRuns(tb, exampleParams, exampleRuns())}},
		{Sender, &PlanEnd{Hash: sum.Hash, Runs: 3, Kept: 7, Chunks: 2, Tiers: []Tier{{"kernel", true, 6, 1}, {"memmap", false, 1, 1}}}},
		{Receiver, &PlanOK{}},
		{Sender, &Chunk{Seq: 1, Extents: []chunk.Extent{extent(7, 1, chunk.Data)}, RawSum: RawSum(page), Payload: page}},
		{Sender, &Chunk{Seq: 0, Extents: []chunk.Extent{extent(4, 3, chunk.Zero), extent(16, 3, chunk.Zero)}, RawSum: RawSum(nil)}},
		{Receiver, &Ack{Durable: setOf(tb, 0, 1), WindowBytes: 5}},
		{Sender, &Finish{Reason: ReasonComplete}},
		{Receiver, &Wait{Reason: "sealing"}},
		{Receiver, &Sealed{State: StateComplete, ID: "x", Pages: 7}},
	}
}

func TestSession(t *testing.T) {
	sender, receiver := connect(t)
	var released *Chunk
	for _, line := range script(t) {
		from, to := sender, receiver
		if line.from == Receiver {
			from, to = receiver, sender
		}
		if err := from.Write(line.m); err != nil {
			t.Fatalf("write %s: %v", line.m.Type(), err)
		}
		got, err := to.Read()
		if err != nil {
			t.Fatalf("read %s: %v", line.m.Type(), err)
		}
		if diff := cmp.Diff(line.m, got, equalMessages); diff != "" {
			t.Errorf("%s (-sent +got):\n%s", line.m.Type(), diff)
		}
		if ch, ok := got.(*Chunk); ok {
			if released != nil && ch != released {
				t.Error("the memory of a released chunk was not used again")
			}
			receiver.Release(ch)
			released = ch
		}
	}
	if err := sender.Close(); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if m, err := receiver.Read(); !errors.Is(err, io.EOF) || m != nil {
			t.Errorf("after the end: got %v, %v; want io.EOF", m, err)
		}
	}
	if sender.BytesWritten() != receiver.BytesRead() || sender.BytesRead() != receiver.BytesWritten() {
		t.Errorf("counts differ: %d, %d and %d, %d", sender.BytesWritten(), receiver.BytesRead(), sender.BytesRead(), receiver.BytesWritten())
	}
	if p, ok := receiver.Params(); !ok || p != exampleParams {
		t.Errorf("got parameters %v, %v", p, ok)
	}
}

// TestOrder tries every message after every line of the session, from either side.
func TestOrder(t *testing.T) {
	lines := script(t)
	after := func(n int) *order {
		o := newOrder()
		for _, l := range lines[:n] {
			if err := o.pass(l.from, l.m); err != nil {
				t.Fatalf("%s: %v", l.m.Type(), err)
			}
		}
		return o
	}
	// may lists what may come after each message besides the next one of the script.
	may := map[Type]string{
		TypeHello: "NOTES RAM LOG LOGEND WAIT", TypeNotes: "NOTES RAM LOG LOGEND WAIT", TypeRAM: "RAM LOG LOGEND WAIT",
		TypeLog: "LOG WAIT", TypeLogEnd: "FINISH LOGSTORED WAIT",
		TypeLogStored: "FINISH WAIT WELCOME SEALED", TypeWait: "FINISH WAIT WELCOME SEALED",
		TypeWelcome: "PLAN PLANEND FINISH WAIT SEALED", TypePlan: "PLAN PLANEND FINISH WAIT SEALED",
		TypePlanEnd: "FINISH WAIT PLANOK SEALED", TypePlanOK: "CHUNK FINISH WAIT ACK SEALED", TypeChunk: "CHUNK FINISH WAIT ACK SEALED",
		TypeAck: "CHUNK FINISH WAIT ACK SEALED", TypeFinish: "WAIT ACK SEALED", TypeSealed: "WAIT",
	}
	for n := 1; n <= len(lines); n++ {
		last := lines[n-1].m.Type()
		allowed := strings.Fields(may[last])
		if n >= len(lines)-1 {
			allowed = []string{"WAIT", "ACK", "SEALED"} // after FINISH
			if last == TypeSealed {
				allowed = []string{"WAIT"}
			}
		}
		for _, l := range lines {
			// Totals are not what is tried here: only whether it is the message's turn.
			err := after(n).inTurn(l.from, l.m.Type())
			want := slices.Contains(allowed, l.m.Type().String()) || n < len(lines) && l.m.Type() == lines[n].m.Type()
			if (err == nil) != want || err != nil && !errors.Is(err, CodeOutOfOrder) {
				t.Errorf("%s after %s (line %d): got %v, want allowed %v", l.m.Type(), last, n, err, want)
			}
			if err := after(n).inTurn(1-l.from, l.m.Type()); !errors.Is(err, CodeOutOfOrder) {
				t.Errorf("%s from the wrong side: got %v", l.m.Type(), err)
			}
		}
	}
	for _, l := range lines[1:] {
		err := newOrder().inTurn(l.from, l.m.Type())
		if l.m.Type() != TypeWait && !errors.Is(err, CodeOutOfOrder) {
			t.Errorf("%s first: got %v", l.m.Type(), err)
		}
	}
}

func TestOrderKeepsTotals(t *testing.T) {
	piece := make([]byte, PieceBytes)
	ram := func(from uint64) *RAM {
		m := &RAM{}
		for i := range uint64(ramPieceRanges) {
			start := mem.PhysAddr((from + i) * 8)
			m.Ranges = append(m.Ranges, mem.Range{Start: start, End: start + 4})
		}
		return m
	}
	for _, tc := range []struct {
		name string
		next func(i uint64) Message
		fits uint64
	}{
		{"notes", func(uint64) Message { return &Notes{Data: piece} }, MaxNotesBytes / PieceBytes},
		{"log", func(uint64) Message { return &Log{Data: piece} }, MaxLogBytes / PieceBytes},
		{"ram", func(i uint64) Message { return ram(i * ramPieceRanges) }, MaxRAMRanges / ramPieceRanges},
	} {
		t.Run(tc.name, func(t *testing.T) {
			o := newOrder()
			if err := o.pass(Sender, exampleHello()); err != nil {
				t.Fatal(err)
			}
			for i := range tc.fits {
				if err := o.pass(Sender, tc.next(i)); err != nil {
					t.Fatalf("piece %d: %v", i, err)
				}
			}
			if err := o.pass(Sender, tc.next(tc.fits)); !errors.Is(err, CodeTooLarge) {
				t.Errorf("one too many: got %v, want %s", err, CodeTooLarge)
			}
		})
	}
}

func TestOrderRefusesContents(t *testing.T) {
	lines := script(t)
	page := make([]byte, 4096)
	for _, tc := range []struct {
		name  string
		after int // lines of the script that go before
		m     Message
		want  Code
	}{
		{"log of another length", 4, &LogEnd{Bytes: 1}, CodeBadLog},
		{"log of another checksum", 4, &LogEnd{Bytes: 21}, CodeBadLog},
		{"RAM that goes back", 3, &RAM{Ranges: []mem.Range{{Start: 1, End: 2}}}, CodeBadMessage},
		{"RAM of nothing", 3, &RAM{}, CodeBadMessage},
		{"chunk beyond the plan", 11, &Chunk{Seq: 2, Extents: []chunk.Extent{extent(1, 1, chunk.Zero)}, RawSum: emptySum}, CodeNotPlanned},
		{"encoding not agreed on", 11, &Chunk{Encoding: EncodingSnappyPage, Extents: []chunk.Extent{extent(1, 1, chunk.Data)}, Sizes: []uint32{4096}, Payload: page}, CodeBadEncoding},
		{"version not offered", 7, &Welcome{Version: 2, Tool: "t", Host: "h", Collect: CollectAll, WindowBytes: 1}, CodeVersion},
	} {
		t.Run(tc.name, func(t *testing.T) {
			o := newOrder()
			for _, l := range lines[:tc.after] {
				if err := o.pass(l.from, l.m); err != nil {
					t.Fatal(err)
				}
			}
			from := Sender
			if types[tc.m.Type()].from == fromReceiver {
				from = Receiver
			}
			if err := o.pass(from, tc.m); !errors.Is(err, tc.want) {
				t.Errorf("got %v, want %s", err, tc.want)
			}
		})
	}
	t.Run("plan when only the log is wanted", func(t *testing.T) {
		o := newOrder()
		for _, l := range lines[:7] {
			if err := o.pass(l.from, l.m); err != nil {
				t.Fatal(err)
			}
		}
		welcome := &Welcome{Version: 1, Collect: CollectLog}
		if err := o.pass(Receiver, welcome); err != nil {
			t.Fatal(err)
		}
		if err := o.pass(Sender, lines[8].m); !errors.Is(err, CodeOutOfOrder) {
			t.Errorf("PLAN: got %v, want %s", err, CodeOutOfOrder)
		}
		if err := o.pass(Sender, &Finish{Reason: ReasonLogOnly}); err != nil {
			t.Errorf("FINISH: %v", err)
		}
	})
}

// stream is a reader's end of bytes that somebody sent.
func stream(b []byte) io.ReadWriter {
	return struct {
		io.Reader
		io.Writer
	}{bytes.NewReader(b), io.Discard}
}

func TestFramesRefused(t *testing.T) {
	hello := func(t *testing.T) []byte { t.Helper(); return encodeFrame(t, exampleHello(), Params{}) }
	seal := func(b []byte) []byte { // a checksum that fits what was changed
		binary.LittleEndian.PutUint32(b[8:], checksum(b[:8], b[headerLen:]))
		return b
	}
	for _, tc := range []struct {
		name   string
		change func(b []byte) []byte
		want   Code
	}{
		{"another protocol", func([]byte) []byte { return []byte("GET / HTTP/1.1\r\n\r\n") }, CodeBadFrame},
		{"reserved flags", func(b []byte) []byte { b[3] = 2; return seal(b) }, CodeBadFrame},
		{"unknown type", func(b []byte) []byte { b[2] = 0x3f; return seal(b) }, CodeUnknownType},
		{"unknown type, too long to skip", func(b []byte) []byte {
			b[2], b[3] = 0x3f, 1
			binary.LittleEndian.PutUint32(b[4:], maxIgnored+1)
			return b
		}, CodeTooLarge},
		{"type of the other side", func(b []byte) []byte { b[2] = byte(TypeSealed); return seal(b) }, CodeOutOfOrder},
		{"oversize length", func(b []byte) []byte { binary.LittleEndian.PutUint32(b[4:], 1<<32-1); return b }, CodeTooLarge},
		{"length one above the limit", func(b []byte) []byte { binary.LittleEndian.PutUint32(b[4:], maxControl+1); return b }, CodeTooLarge},
		{"one payload bit", func(b []byte) []byte { b[20] ^= 1; return b }, CodeBadChecksum},
		{"one checksum bit", func(b []byte) []byte { b[8] ^= 1; return b }, CodeBadChecksum},
		{"one length bit", func(b []byte) []byte { b[4] ^= 1; return b }, CodeBadChecksum},
		{"ends in the header", func(b []byte) []byte { return b[:5] }, CodeBadFrame},
		{"ends after the header", func(b []byte) []byte { return b[:headerLen] }, CodeBadFrame},
		{"ends in the payload", func(b []byte) []byte { return b[:len(b)-1] }, CodeBadFrame},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c := NewConn(stream(tc.change(hello(t))), Receiver)
			m, err := c.Read()
			if !errors.Is(err, tc.want) || m != nil {
				t.Errorf("got %v, %v; want %s and no message", m, err, tc.want)
			}
			if _, again := c.Read(); again != err { //nolint:errorlint // the very same one
				t.Errorf("the error does not stick: %v", again)
			}
		})
	}
}

// TestEveryFlippedBit flips each bit of a frame and wants each one found.
func TestEveryFlippedBit(t *testing.T) {
	frame := encodeFrame(t, exampleHello(), Params{})
	for i := range len(frame) * 8 {
		bad := bytes.Clone(frame)
		bad[i/8] ^= 1 << (i % 8)
		if m, err := NewConn(stream(bad), Receiver).Read(); err == nil || m != nil {
			t.Fatalf("bit %d: got %v, no error", i, m)
		}
	}
}

func TestUnknownTypeIsSkipped(t *testing.T) {
	ignorable := func(n int) []byte {
		b := make([]byte, headerLen+n)
		header{typ: 0x3e, flags: flagIgnorable, length: uint32(n)}.put(b, b[headerLen:])
		return b
	}
	b := slices.Concat(ignorable(0), ignorable(maxIgnored), encodeFrame(t, exampleHello(), Params{}))
	if m, err := NewConn(stream(b), Receiver).Read(); err != nil || m.Type() != TypeHello {
		t.Errorf("got %v, %v; want HELLO", m, err)
	}
	b = ignorable(4)
	b[headerLen]++
	if _, err := NewConn(stream(b), Receiver).Read(); !errors.Is(err, CodeBadChecksum) {
		t.Errorf("damaged: got %v, want %s", err, CodeBadChecksum)
	}
}

func TestWriteRefusesAndGoesOn(t *testing.T) {
	sender, receiver := connect(t)
	bad := exampleHello()
	bad.PageSize = 5
	for _, m := range []Message{bad, &Plan{Data: []byte{1}}, &Notes{}, &Notes{Data: make([]byte, PieceBytes+1)}, &LogStored{}} {
		if err := sender.Write(m); errors.Is(err, CodeInternal) || !errors.As(err, new(*Error)) {
			t.Errorf("%s: got %v, want a code", m.Type(), err)
		}
	}
	if err := sender.Write(exampleHello()); err != nil {
		t.Fatal(err)
	}
	if m, err := receiver.Read(); err != nil || m.Type() != TypeHello {
		t.Errorf("got %v, %v; want HELLO", m, err)
	}
}

type brokenPipe struct{ writes int }

func (b *brokenPipe) Read([]byte) (int, error)  { return 0, io.ErrClosedPipe }
func (b *brokenPipe) Write([]byte) (int, error) { b.writes++; return 0, io.ErrClosedPipe }

func TestWriteErrorSticks(t *testing.T) {
	b := new(brokenPipe)
	c := NewConn(b, Sender)
	for range 3 {
		if err := c.Write(&Ping{}); !errors.Is(err, io.ErrClosedPipe) {
			t.Errorf("got %v", err)
		}
	}
	if b.writes != 1 {
		t.Errorf("%d writes to a broken stream, want 1", b.writes)
	}
	if _, err := c.Read(); !errors.Is(err, io.ErrClosedPipe) {
		t.Errorf("read: got %v", err)
	}
}

// TestRemoteError refuses a sender that is in the middle of sending, and wants it to
// learn why: the receiver's Shutdown must not reset the connection.
func TestRemoteError(t *testing.T) {
	sender, receiver := connect(t)
	refusal := &Error{Code: CodeDeclined, Text: "not\nthis host", Hint: "ask", RetryAfter: time.Minute}
	var wg sync.WaitGroup
	wg.Go(func() {
		_ = sender.Write(exampleHello())
		_ = sender.WriteNotes(make([]byte, MaxNotesBytes)) // ends with the connection
	})
	if _, err := receiver.Read(); err != nil {
		t.Fatal(err)
	}
	wg.Go(func() {
		if err := receiver.Shutdown(refusal, 10*time.Second); err != nil {
			t.Errorf("shutdown: %v", err)
		}
	})
	_, err := sender.Read()
	got, ok := errors.AsType[*Error](err)
	if !ok {
		t.Fatalf("got %v, want the receiver's refusal", err)
	}
	want := Error{Code: CodeDeclined, Text: "not?this host", Hint: "ask", RetryAfter: time.Minute, Remote: true}
	if diff := cmp.Diff(want, *got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if err := sender.Shutdown(err, time.Second); err != nil {
		t.Errorf("the sender's shutdown: %v", err)
	}
	wg.Wait()
}

// TestShutdownBesideRead: what the peer said last reaches a reader that is at work
// while another goroutine ends the session.
func TestShutdownBesideRead(t *testing.T) {
	sender, receiver := connect(t)
	if err := sender.Write(exampleHello()); err != nil {
		t.Fatal(err)
	}
	go func() {
		for range 2000 {
			_ = receiver.Write(&Ping{Token: 1 << 60}) // a lost one shifts the frames after it
		}
		_ = receiver.Shutdown(Errorf(CodeShuttingDown, "now"), 10*time.Second)
	}()
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := sender.Shutdown(nil, 10*time.Second); err != nil {
			t.Errorf("shutdown: %v", err)
		}
	})
	if _, err := sender.Read(); !errors.Is(err, CodeShuttingDown) {
		t.Errorf("got %v, want %s", err, CodeShuttingDown)
	}
	wg.Wait()
}

// TestReadAfterShutdown: what the peer said last is kept for a later Read, too.
func TestReadAfterShutdown(t *testing.T) {
	sender, receiver := connect(t)
	if err := receiver.Write(&Ping{}); err != nil {
		t.Fatal(err)
	}
	go func() { _ = receiver.Shutdown(Errorf(CodeShuttingDown, "now"), 10*time.Second) }()
	if err := sender.Shutdown(nil, 10*time.Second); err != nil {
		t.Errorf("shutdown: %v", err)
	}
	if _, err := sender.Read(); !errors.Is(err, CodeShuttingDown) {
		t.Errorf("got %v, want %s", err, CodeShuttingDown)
	}
}

// TestShutdownDoesNotWaitForEver: a peer that never closes costs the linger, no more.
func TestShutdownDoesNotWaitForEver(t *testing.T) {
	_, receiver := connect(t)
	if err := receiver.Shutdown(errors.New("secret /etc/path"), 20*time.Millisecond); err != nil {
		t.Errorf("got %v", err)
	}
}

// TestConcurrentWriters writes from several goroutines and wants whole frames.
func TestConcurrentWriters(t *testing.T) {
	sender, receiver := connect(t)
	lines := script(t)
	for _, l := range lines[:11] {
		from, to := sender, receiver
		if l.from == Receiver {
			from, to = to, from
		}
		if err := from.Write(l.m); err != nil {
			t.Fatal(err)
		}
		if _, err := to.Read(); err != nil {
			t.Fatal(err)
		}
	}
	const writers, each = 4, 50
	for range writers {
		go func() {
			for range each {
				_ = sender.Write(lines[11].m) // a lost one is missed by the reader
			}
		}()
	}
	held := make(map[*Chunk]bool)
	for range writers * each {
		m, err := receiver.Read()
		if err != nil {
			t.Fatal(err)
		}
		ch := m.(*Chunk)
		if held[ch] {
			t.Fatal("a chunk that was not released was used again")
		}
		if RawSum(ch.Payload) != ch.RawSum {
			t.Fatal("damaged payload")
		}
		if held[ch] = true; len(held) == 3 {
			for ch := range held {
				go receiver.Release(ch)
			}
			clear(held)
		}
	}
}

func TestLogWriter(t *testing.T) {
	sender, receiver := connect(t)
	text := []byte(strings.Repeat("[    1.000000] a line of the kernel's log\n", 5000))
	go func() {
		_ = sender.Write(exampleHello())
		w := sender.NewLogWriter()
		for line := range bytes.Lines(text) {
			_, _ = w.Write(line)
		}
		_ = w.Close("cut\nshort")
	}()
	var got []byte
	for {
		m, err := receiver.Read()
		if err != nil {
			t.Fatal(err)
		}
		switch m := m.(type) {
		case *Log:
			got = append(got, m.Data...)
			continue
		case *LogEnd:
			if m.Bytes != uint64(len(text)) || m.Error != "cut?short" || !bytes.Equal(got, text) {
				t.Errorf("got %d bytes, %+v; want %d", len(got), m, len(text))
			}
			return
		}
	}
}

func TestLogWriterIsBounded(t *testing.T) {
	c := NewConn(stream(nil), Sender)
	if err := c.Write(exampleHello()); err != nil {
		t.Fatal(err)
	}
	w := c.NewLogWriter()
	piece := make([]byte, 1<<20)
	var err error
	for range MaxLogBytes>>20 + 1 {
		if _, err = w.Write(piece); err != nil {
			break
		}
	}
	if !errors.Is(err, CodeTooLarge) {
		t.Errorf("got %v, want %s", err, CodeTooLarge)
	}
	if err := w.Close("too long"); err != nil {
		t.Errorf("close: %v", err)
	}
}

func ExampleCode() {
	err := fmt.Errorf("session: %w", &Error{Code: CodeSuperseded, Remote: true})
	fmt.Println(errors.Is(err, CodeSuperseded))
	// Output: true
}
