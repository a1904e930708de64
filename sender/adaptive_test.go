package sender

import (
	"crypto/tls"
	"io"
	"net"
	"testing"
	"time"

	"github.com/corehaul/corehaul/protocol"
)

// simulated is a dump over a line, in simulated time: chunks of one kind, encoders, a connection with a buffer, and a receiver.
type simulated struct {
	chunks, workers int
	line            float64          // bytes per second
	later           float64          // of the line in the second half, if not 0
	buffer          float64          // bytes that the connection accepts before a write waits
	size            [2]float64       // bytes of a chunk, light and strong
	encode          [2]time.Duration // of one worker for a chunk
	receive         [2]time.Duration // of the receiver for a chunk
}

// run returns how long the dump takes with the encodings that choose returns: 0 light, 1 strong. It tells seen what the writer sees.
func (s *simulated) run(choose func() int, seen func(traffic)) time.Duration {
	var queue, unacked []arrival // what the connection has accepted, and when the receiver has taken it, and acknowledges it
	workers, slots := make([]float64, s.workers), make([]float64, s.workers+2)
	var now, sent, taken float64
	for i := range s.chunks {
		worker := 0
		for w := range workers {
			if workers[w] < workers[worker] {
				worker = w
			}
		}
		kind := choose()
		ready := max(workers[worker], slots[i%len(slots)]) + s.encode[kind].Seconds()
		workers[worker] = ready
		waited := max(0, ready-now)
		now += waited
		line := s.line
		if s.later > 0 && i > s.chunks/2 {
			line = s.later
		}
		began := now
		sent = max(sent, now) + s.size[kind]/line
		taken = max(taken, sent) + s.receive[kind].Seconds()
		queue = append(queue, arrival{s.size[kind], taken})
		unacked = append(unacked, arrival{s.size[kind], taken + commit})
		queued := open(&queue, now)
		for ; queued > s.buffer; queued = open(&queue, now) {
			now = queue[0].at
		}
		slots[i%len(slots)] = now
		seen(traffic{
			bytes: uint64(s.size[kind]), queued: uint64(queued), unacked: uint64(open(&unacked, now)),
			encoder: time.Duration(waited * 1e9), network: time.Duration((now - began) * 1e9),
		})
	}
	return time.Duration(max(now, taken, sent) * 1e9)
}

// arrival is a chunk on its way, and when that ends.
type arrival struct{ bytes, at float64 }

// commit is how long the receiver takes to acknowledge what it has, in seconds.
const commit = 0.2

// open drops the chunks that are no longer on their way, and returns the bytes of the others.
func open(list *[]arrival, now float64) (sum float64) {
	for len(*list) > 0 && (*list)[0].at <= now {
		*list = (*list)[1:]
	}
	for _, a := range *list {
		sum += a.bytes
	}
	return sum
}

// fixed returns how long the dump takes with one encoding.
func (s *simulated) fixed(kind int) time.Duration {
	return s.run(func() int { return kind }, func(traffic) {})
}

// adaptive returns how long it takes with the encodings that are chosen, and how many chunks had the strong one.
func (s *simulated) adaptive() (took time.Duration, strong int) {
	a := newAdaptiveEncoding([]protocol.Encoding{protocol.EncodingSnappyPage, protocol.EncodingZstdBlock}, s.workers)
	took = s.run(func() int {
		with, probe := a.next()
		if probe {
			a.probed(int(s.size[0]), int(s.size[1]), s.encode[1])
		}
		if with == protocol.EncodingZstdBlock {
			strong++
			return 1
		}
		return 0
	}, a.observe)
	return took, strong
}

const (
	mbit = 1e6 / 8
	ms   = time.Millisecond
)

// tried is what a try of the strong encoding may cost that shows that the receiver cannot follow.
const tried = 300 * ms

// TestAdaptive compares the encodings that are chosen with either of them alone, for lines and machines of many kinds.
func TestAdaptive(t *testing.T) {
	text, random := [2]float64{180e3, 87e3}, [2]float64{1040e3, 915e3}
	quick, slow := [2]time.Duration{ms / 2, 3 * ms / 2}, [2]time.Duration{2 * ms, 8 * ms}
	idle := [2]time.Duration{ms / 10, ms / 5}
	for name, s := range map[string]simulated{
		"100 Mbit/s":                        {line: 100 * mbit, size: text, encode: quick, receive: idle},
		"100 Mbit/s, one slow CPU":          {line: 100 * mbit, size: text, encode: slow, receive: idle, workers: 1},
		"1 Gbit/s":                          {line: 1000 * mbit, size: text, encode: quick, receive: idle},
		"1 Gbit/s, random pages":            {line: 1000 * mbit, size: random, encode: quick, receive: idle},
		"1 Gbit/s, one slow CPU":            {line: 1000 * mbit, size: text, encode: slow, receive: idle, workers: 1},
		"100 Gbit/s":                        {line: 1e5 * mbit, size: text, encode: quick, receive: idle},
		"a receiver that pays for blocks":   {line: 1e5 * mbit, size: random, encode: quick, receive: [2]time.Duration{3 * ms, 5 * ms}},
		"a receiver limited by its disk":    {line: 1e5 * mbit, size: random, encode: quick, receive: [2]time.Duration{10 * ms, 9 * ms}},
		"a line that becomes slow":          {line: 1e4 * mbit, later: 100 * mbit, size: text, encode: quick, receive: idle},
		"a line that becomes fast":          {line: 100 * mbit, later: 1e4 * mbit, size: text, encode: slow, receive: idle, workers: 1},
		"a line with a buffer of 16 MB":     {line: 100 * mbit, size: text, encode: quick, receive: idle, buffer: 16e6},
		"a receiver that is slow at either": {line: 1000 * mbit, size: text, encode: quick, receive: [2]time.Duration{20 * ms, 25 * ms}},
	} {
		s.chunks, s.workers, s.buffer = 2000, max(s.workers, 2-s.workers), max(s.buffer, 3e6)
		took, strong := s.adaptive()
		light, heavy := s.fixed(0), s.fixed(1)
		best := min(light, heavy)
		t.Logf("%-36s light %v, strong %v, chosen %v with %d of %d strong: %.3f of the best", name, light.Round(ms), heavy.Round(ms), took.Round(ms), strong, s.chunks,
			took.Seconds()/best.Seconds())
		if took > best+best/20+tried {
			t.Errorf("%s: %v, with the best encoding %v", name, took, best)
		}
	}
}

// TestAdaptiveWithoutChoice: one encoding stays, and nothing is probed.
func TestAdaptiveWithoutChoice(t *testing.T) {
	a := newAdaptiveEncoding([]protocol.Encoding{protocol.EncodingLZ4Block}, 2)
	for range 100 {
		a.observe(traffic{bytes: 1 << 20, queued: 1 << 22, network: time.Second})
		if with, probe := a.next(); with != protocol.EncodingLZ4Block || probe {
			t.Fatalf("%s, probe %v", with, probe)
		}
	}
}

// TestBacklog fills a connection whose peer reads nothing, with and without TLS.
func TestBacklog(t *testing.T) {
	var lc net.ListenConfig
	l, err := lc.Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	var d net.Dialer
	near, err := d.DialContext(t.Context(), "tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	far, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	queued, overTLS := backlog(near), backlog(tls.Client(near, &tls.Config{MinVersion: tls.VersionTLS13}))
	if n := queued(); n != 0 {
		t.Errorf("an idle connection has %d bytes queued", n)
	}
	if err := near.SetWriteDeadline(time.Now().Add(100 * ms)); err != nil {
		t.Fatal(err)
	}
	for err == nil {
		_, err = near.Write(make([]byte, 1<<20))
	}
	if a, b := queued(), overTLS(); a == 0 || b == 0 {
		t.Errorf("a full connection has %d bytes queued, seen through TLS %d", a, b)
	}
	go func() { _, _ = io.Copy(io.Discard, far) }()
	_ = near.Close()
	if n := queued(); n != 0 {
		t.Errorf("a closed connection has %d bytes queued", n)
	}
	a, b := net.Pipe()
	if n := backlog(a)(); n != 0 {
		t.Errorf("a pipe has %d bytes queued", n)
	}
	_, _, _ = a.Close(), b.Close(), far.Close()
}
