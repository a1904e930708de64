package receiver

import (
	"bytes"
	"io"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/corehaul/corehaul/protocol"
)

// recorder keeps what is written to a connection.
type recorder struct {
	net.Conn
	mu  sync.Mutex
	sum bytes.Buffer
}

func (r *recorder) Write(p []byte) (int, error) {
	r.mu.Lock()
	r.sum.Write(p)
	r.mu.Unlock()
	return r.Conn.Write(p)
}

// record returns the bytes that a sender sends for a whole dump.
func record(r *rig, d *testDump) []byte {
	ours, theirs := net.Pipe()
	var wg sync.WaitGroup
	wg.Go(func() {
		_ = r.server.HandleConn(r.t.Context(), theirs, Peer{Host: "fuzz", Addr: "pipe", Transport: "pipe"})
	})
	rec := &recorder{Conn: ours}
	p := &peer{t: r.t, wire: protocol.NewConn(rec, protocol.Sender), dump: d}
	p.whole()
	_ = ours.Close()
	wg.Wait()
	return rec.sum.Bytes()
}

// FuzzSession plays any bytes to a server as a sender's. Whatever they are, the
// session ends, and all that it held is given back.
func FuzzSession(f *testing.F) {
	patient := newRig(f, nil)
	r := newRig(f, func(c *Config) { c.ResumeGrace = time.Nanosecond; c.IdleTimeout = time.Second })
	for i, encoding := range []protocol.Encoding{protocol.EncodingSnappyPage, protocol.EncodingLZ4Block} {
		d := newDump(f, uint64(i))
		d.encoding = encoding
		d.runs = d.runs[:1]
		d.cut = d.cut[:1]
		d.cut[0] = d.cut[0][:1]
		f.Add(record(patient, d))
	}
	f.Add([]byte("GET / HTTP/1.1\r\n\r\n"))
	f.Fuzz(func(t *testing.T, stream []byte) {
		ours, theirs := net.Pipe()
		var wg sync.WaitGroup
		wg.Go(func() {
			_ = r.server.HandleConn(t.Context(), theirs, Peer{Host: "fuzz", Addr: "pipe", Transport: "pipe"})
		})
		wg.Go(func() { _, _ = io.Copy(io.Discard, ours) })
		_, _ = ours.Write(stream)
		_ = ours.Close()
		wg.Wait()
		r.server.hello.mu.Lock()
		defer r.server.hello.mu.Unlock()
		if free := r.server.hello.free; free != r.server.shares.hello {
			t.Errorf("%d bytes were not given back", r.server.shares.hello-free)
		}
	})
}
