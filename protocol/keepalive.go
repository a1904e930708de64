package protocol

import (
	"context"
	"errors"
	"io"
	"sync"
	"sync/atomic"
	"time"
)

// Defaults of KeepAlive. The timeout is several heartbeats, so that one or two may be late because of
// retransmissions.
const (
	DefaultHeartbeat = 10 * time.Second
	DefaultTimeout   = 45 * time.Second
)

// meter passes bytes on and records when bytes last moved.
type meter struct {
	rw          io.ReadWriter
	start       time.Time
	read, wrote atomic.Uint64
	// readSince and writeSince are the start of the running Read or Write, in nanoseconds after start plus one; 0 if
	// none is running.
	readSince, writeSince atomic.Int64
	lastRead, lastWrite   atomic.Int64
	closing               sync.Once
	closeErr              error
}

func newMeter(rw io.ReadWriter) *meter {
	return &meter{rw: rw, start: time.Now()}
}

func (m *meter) now() int64 { return int64(time.Since(m.start)) }

func (m *meter) Read(p []byte) (int, error) {
	m.readSince.Store(m.now() + 1)
	n, err := m.rw.Read(p)
	m.readSince.Store(0)
	m.lastRead.Store(m.now())
	m.read.Add(uint64(max(n, 0)))
	return n, err
}

func (m *meter) Write(p []byte) (int, error) {
	m.writeSince.Store(m.now() + 1)
	n, err := m.rw.Write(p)
	m.writeSince.Store(0)
	m.lastWrite.Store(m.now())
	m.wrote.Add(uint64(max(n, 0)))
	return n, err
}

// close closes the stream once.
func (m *meter) close() error {
	m.closing.Do(func() {
		if cl, ok := m.rw.(io.Closer); ok {
			m.closeErr = cl.Close()
		}
	})
	return m.closeErr
}

// stalled returns how long the running call has waited; 0 if there is none.
func (m *meter) stalled(since *atomic.Int64) time.Duration {
	began := since.Load()
	if began == 0 {
		return 0
	}
	return time.Duration(m.now() - began + 1)
}

// gone returns an Error if the peer was silent for timeout.
func (m *meter) gone(timeout time.Duration) error {
	if d := m.stalled(&m.readSince); d >= timeout {
		return Errorf(CodeTimeout, "nothing heard for %v", d.Round(time.Second))
	}
	// A peer that accepts nothing but still sends is busy.
	heard := time.Duration(m.now() - m.lastRead.Load())
	if d := m.stalled(&m.writeSince); d >= timeout && heard >= timeout {
		return Errorf(CodeTimeout, "nothing taken or heard for %v", min(d, heard).Round(time.Second))
	}
	return nil
}

// KeepAlive sets when a peer counts as dead.
type KeepAlive struct {
	// Heartbeat is the longest silence before PING is sent; 0 means DefaultHeartbeat.
	Heartbeat time.Duration
	// Timeout is how long a read may wait, or a write while the peer is silent; 0 means DefaultTimeout. The stream
	// must be closable. Only waiting counts: time during which this side does not read does not count.
	Timeout time.Duration
}

// KeepAlive sends PING after a silence of this side, answers the peer's PINGs, and closes the stream if the peer is
// silent for too long. It returns an Error with CodeTimeout if it closed the stream, and nil if ctx is done or the
// connection ended otherwise. Each side runs one, with a goroutine in Read.
func (c *Conn) KeepAlive(ctx context.Context, k KeepAlive) error {
	if k.Heartbeat <= 0 {
		k.Heartbeat = DefaultHeartbeat
	}
	if k.Timeout <= 0 {
		k.Timeout = DefaultTimeout
	}
	c.alive.Add(1)
	defer c.alive.Add(-1)
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Go(func() {
		defer cancel()
		c.heartbeat(ctx, k.Heartbeat)
	})
	return c.watch(ctx, k.Timeout)
}

// heartbeat returns when ctx is done or a write fails.
func (c *Conn) heartbeat(ctx context.Context, every time.Duration) {
	tick := time.NewTicker(max(every/4, time.Millisecond))
	defer tick.Stop()
	token := uint64(0)
	for {
		var err error
		select {
		case <-ctx.Done():
			return
		case t := <-c.pings:
			err = c.beat(&Pong{Token: t})
		case <-tick.C:
			if c.rw.now()-c.rw.lastWrite.Load() >= int64(every/2) {
				token++
				err = c.beat(&Ping{Token: token})
			}
		}
		if err != nil {
			return
		}
	}
}

// beat sends m, unless a frame is being sent: that shows the peer the same.
func (c *Conn) beat(m Message) error {
	if c.quiet.Load() || !c.wmu.TryLock() {
		return nil
	}
	defer c.wmu.Unlock()
	return c.write(m)
}

// answer leaves a token for KeepAlive, so that the reader never waits for a write. If a token is waiting already, it
// drops this one. Without a KeepAlive it answers itself.
func (c *Conn) answer(token uint64) {
	if c.alive.Load() == 0 {
		_ = c.beat(&Pong{Token: token}) // a failed write sticks and the next Write tells
		return
	}
	select {
	case c.pings <- token:
	default:
	}
}

// watch closes the stream if a read or a write waits for too long.
func (c *Conn) watch(ctx context.Context, timeout time.Duration) error {
	tick := time.NewTicker(max(timeout/8, time.Millisecond))
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		if gone := c.rw.gone(timeout); gone != nil {
			return errors.Join(gone, c.rw.close())
		}
	}
}
