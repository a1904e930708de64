package sshd

import (
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"time"
)

// readBytes is how much one look at a channel may bring: an SSH packet has 32 KiB.
const readBytes = 64 << 10

// channelConn is a channel as a net.Conn. Its Read keeps to a deadline, which a channel's own cannot: another
// goroutine reads ahead of it, by one piece. There is no deadline for writing; Close
// lets go whoever hangs in a Write.
type channelConn struct {
	*channel
	data   chan []byte   // a piece from the reader
	more   chan struct{} // the piece was used up
	once   sync.Once
	closed chan struct{}
	ended  chan struct{} // closed when the reader has ended
	err    error         // why it has

	mu       sync.Mutex // Read
	rest     []byte
	deadline deadline
}

func newChannelConn(ch *channel) *channelConn {
	c := &channelConn{
		channel: ch, data: make(chan []byte), more: make(chan struct{}), closed: make(chan struct{}), ended: make(chan struct{}),
		deadline: deadline{passed: make(chan struct{})},
	}
	go c.readAhead()
	return c
}

func (c *channelConn) readAhead() {
	defer close(c.ended)
	buf := make([]byte, readBytes)
	for {
		n, err := c.Channel.Read(buf)
		if n > 0 {
			select {
			case c.data <- buf[:n]:
			case <-c.closed:
			}
			select {
			case <-c.more:
			case <-c.closed:
			}
		}
		if err != nil {
			c.err = err
			return
		}
	}
}

// Read returns os.ErrDeadlineExceeded when the deadline has passed, net.ErrClosed after Close, and
// io.EOF when the peer has ended the stream or is gone.
func (c *channelConn) Read(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.rest) == 0 {
		if err := c.next(); err != nil {
			return 0, err
		}
	}
	n := copy(p, c.rest)
	c.rest = c.rest[n:]
	if len(c.rest) == 0 {
		select {
		case c.more <- struct{}{}:
		case <-c.closed:
		}
	}
	return n, nil
}

// next waits for a piece.
func (c *channelConn) next() error {
	passed := c.deadline.wait()
	select {
	case <-c.closed:
		return net.ErrClosed
	case <-passed:
		return os.ErrDeadlineExceeded
	default:
	}
	select {
	case c.rest = <-c.data:
		return nil
	case <-c.ended:
		return c.err
	case <-c.closed:
		return net.ErrClosed
	case <-passed:
		return os.ErrDeadlineExceeded
	}
}

// Close closes the channel. What became of the dump was said in the stream.
func (c *channelConn) Close() error { return c.closeWith(exitOK) }

// closeWith closes the channel of a command that has ended with status. Only the first call counts.
func (c *channelConn) closeWith(status uint32) error {
	first := false
	c.once.Do(func() { close(c.closed); first = true })
	if !first {
		return nil
	}
	err := c.finish(status)
	if errors.Is(err, io.EOF) {
		return nil // the peer was first
	}
	return err
}

// end closes the connection and waits until nothing of it is left.
func (c *channelConn) end() {
	_ = c.Close() // the second time, mostly
	<-c.ended
}

// LocalAddr is where the server listens.
func (c *channelConn) LocalAddr() net.Addr { return c.c.ssh.LocalAddr() }

// RemoteAddr is where the peer connects from.
func (c *channelConn) RemoteAddr() net.Addr { return c.c.ssh.RemoteAddr() }

// SetReadDeadline sets when Read stops waiting; the zero time is never.
func (c *channelConn) SetReadDeadline(t time.Time) error {
	c.deadline.set(t)
	return nil
}

// SetWriteDeadline is not supported.
func (c *channelConn) SetWriteDeadline(time.Time) error { return os.ErrNoDeadline }

// SetDeadline is not supported.
func (c *channelConn) SetDeadline(time.Time) error { return os.ErrNoDeadline }

// deadline is a time that may be moved while others wait for it.
type deadline struct {
	mu     sync.Mutex
	timer  *time.Timer
	passed chan struct{} // closed at the time
}

func (d *deadline) set(t time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.timer != nil && !d.timer.Stop() {
		<-d.passed // it is being closed
	}
	d.timer = nil
	select {
	case <-d.passed:
		d.passed = make(chan struct{})
	default:
	}
	if t.IsZero() {
		return
	}
	passed := d.passed
	d.timer = time.AfterFunc(time.Until(t), func() { close(passed) })
}

func (d *deadline) wait() <-chan struct{} {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.passed
}
